"""What a daemon and all its engines hold of the machine's memory, measured from outside: by a control group of theirs.

A group counts what outlives its process too (shared memory that nobody removed), which a look at processes cannot.
Where no group can be made (no right to, no memory controller) the processes are all that is looked at.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from hyperllamad.supervision import procfs
from tests.daemon import Daemon, eventually

# What cannot be taken back: anonymous pages and shared memory, as memory.stat calls them in either version.
COUNTED = {"cgroup2": ("anon", "shmem"), "cgroup": ("total_rss", "total_shmem")}


class Held:
    """held() at any moment; add() every new process of the daemon."""

    def __init__(self, group: Path | None, kind: str) -> None:
        self._group = group
        self._kind = kind
        self._pid = 0

    @property
    def how(self) -> str:
        """How it is measured, for the report."""
        return "by control group" if self._group is not None else "by process"

    def add(self, running: Daemon) -> None:
        """From now on that daemon, and whoever it will start, or has started already: what waits for the next start."""
        assert running.process is not None
        self._pid = running.process.pid
        if self._group is not None:
            for pid in (self._pid, *procfs.descendants(self._pid, procfs.processes())):
                with contextlib.suppress(ProcessLookupError):
                    (self._group / "cgroup.procs").write_text(str(pid))

    def held(self) -> int:
        """Bytes."""
        if self._group is None:
            return procfs.unreclaimable([self._pid, *procfs.descendants(self._pid, procfs.processes())])
        return sum(self._values())

    def shared(self) -> int:
        """Bytes of that which are shared memory; 0 where it is measured by process, which does not see what stays."""
        return self._values()[1] if self._group is not None else 0

    def _values(self) -> list[int]:
        assert self._group is not None
        lines = (line.split() for line in (self._group / "memory.stat").read_text().splitlines())
        values = {name: int(value) for name, value in lines}
        return [values.get(name, 0) for name in COUNTED[self._kind]]


@contextlib.contextmanager
def watched(running: Daemon) -> Iterator[Held]:
    """Measure a started daemon that has no engine yet."""
    group, kind = _make()
    try:
        found = Held(group, kind)
        found.add(running)
        yield found
    finally:
        if group is not None:
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):  # the daemon is stopped by whoever started it
                    (group.parent / "cgroup.procs").write_text(pid)
            eventually(lambda: not (group / "cgroup.procs").read_text().split(), within=10, what="an empty group")
            group.rmdir()


def _make() -> tuple[Path | None, str]:
    """A control group beside ours that counts memory, and the version of its kind."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            made = Path(point, f"hyperllama-faults-{secrets.token_hex(4)}")
            with contextlib.suppress(OSError):
                made.mkdir()
                if os.access(made / "memory.stat", os.R_OK):
                    return made, kind
                made.rmdir()
    return None, ""
