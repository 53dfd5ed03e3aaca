"""A control group for each engine, below the one that systemd has delegated to us; without delegation there is none.

Knows the files of cgroup v2 (the kernel's admin-guide/cgroup-v2.rst) and systemd's marks of delegation
(systemd.io/CGROUP_DELEGATION); must not know engines or who lives in a group.  A group is useful without any
controller too: `cgroup.kill` ends everybody in it at once, whatever session or parent they have.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperllamad.core.models import Limits

log = logging.getLogger("hyperllamad.supervision")

PREFIX = "engine-"
MARK = "user.hyperllama.runtime"  # extended attribute of a group: whose it is
DELEGATED = ("user.delegate", "trusted.delegate")  # set to 1 by systemd; the first since version 251
WANTED = ("memory", "pids", "cpu")  # controllers; what is missing limits nothing


@dataclass(frozen=True, slots=True)
class Deaths:
    """What the kernel's memory management did to a group; all 0 without the memory controller."""

    limit: int = 0  # times that the group's own limit left it no other choice
    killed: int = 0  # processes killed for memory, for whatever reason

    @property
    def by_limit(self) -> bool:
        return self.killed > 0 and self.limit > 0


NO_DEATHS = Deaths()


@dataclass(frozen=True, slots=True)
class Delegation:
    """The directory below which we may make groups, and the controllers that work there."""

    root: Path
    controllers: frozenset[str]
    runtime: str  # written on every group, so that two daemons in one delegation keep apart

    def make(self, name: str, limits: Limits) -> Path:
        """A new empty group; raises OSError."""
        group = self.root / f"{PREFIX}{name}"
        group.mkdir()
        try:
            os.setxattr(group, MARK, self.runtime.encode())
            for file, value in self._values(limits):
                (group / file).write_text(value, encoding="ascii")
        except OSError:
            group.rmdir()
            raise
        return group

    def groups(self) -> Iterator[tuple[str, Path]]:
        """Name and path of every group that we or an earlier life of ours made."""
        for group in sorted(self.root.glob(f"{PREFIX}*")):
            with contextlib.suppress(OSError):
                if os.getxattr(group, MARK) == self.runtime.encode():
                    yield group.name.removeprefix(PREFIX), group

    def _values(self, limits: Limits) -> Iterator[tuple[str, str]]:
        if "memory" in self.controllers:
            # Half an engine answers nobody: when the kernel must kill one of it, it shall kill all.
            yield "memory.oom.group", "1"
            if limits.memory:
                yield "memory.max", str(limits.memory)
                if (self.root / "memory.swap.max").exists():
                    yield "memory.swap.max", "0"  # weights on a swap device serve nobody
        if "pids" in self.controllers and limits.tasks:
            yield "pids.max", str(limits.tasks)
        if "cpu" in self.controllers and limits.cpu_weight:
            yield "cpu.weight", str(limits.cpu_weight)


def delegation(runtime: Path, proc: Path = Path("/proc/self")) -> Delegation | None:
    """What was delegated to us; None when nothing was, or the kernel is too old (cgroup.kill: Linux 5.14).

    We must sit in a group of our own below the delegated one (DelegateSubgroup=), as cgroup v2 wants it.
    """
    own = _own_group(proc)
    if own is None or not _is_given_to_us(own.parent) or not (own / "cgroup.kill").exists():
        return None
    return Delegation(own.parent, frozenset(_enable(own.parent)), str(runtime))


def unenforced(limits: Limits, where: Delegation | None) -> list[str]:
    """The controllers of limits that are asked for and that nothing here enforces."""
    asked = (("memory", limits.memory), ("pids", limits.tasks), ("cpu", limits.cpu_weight))
    have = where.controllers if where is not None else frozenset[str]()
    return [name for name, value in asked if value and name not in have]


def members(group: Path) -> list[int]:
    """Numbers of the processes in it, zombies left out; empty when there is no such group."""
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_bytes().split()]
    except OSError:
        return []


def kill(group: Path) -> None:
    """SIGKILL to everybody in it and below it, those who are being born included."""
    with contextlib.suppress(OSError):  # it is gone already
        (group / "cgroup.kill").write_text("1", encoding="ascii")


def deaths(group: Path) -> Deaths:
    """Read it before the group is removed."""
    events = _numbers(group / "memory.events")
    return Deaths(limit=events.get("oom", 0), killed=events.get("oom_kill", 0))


def remove(group: Path) -> None:
    """Remove an empty group, with those its engine may have made in it; raises OSError while anybody is left."""
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(FileNotFoundError):
            Path(directory).rmdir()


# -- where we are ------------------------------------------------------------------------------------------------------


def _own_group(proc: Path) -> Path | None:
    """The directory of our own group; None when the unified hierarchy is not to be seen from here."""
    try:
        path = re.search(r"(?m)^0::(/.*)$", (proc / "cgroup").read_text(encoding="utf-8", errors="surrogateescape"))
        mounts = (proc / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    if path is None or path[1] == "/":
        return None
    # proc_pid_mountinfo(5): ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAGS] - TYPE SOURCE OPTIONS
    for mount in re.finditer(r"(?m)^\S+ \S+ \S+ (\S+) (\S+) .*? - cgroup2 ", mounts):
        root, point = mount[1].rstrip("/"), Path(mount[2])
        if path[1].startswith(f"{root}/") and (own := point / path[1][len(root) + 1 :]).is_dir():
            return own
    return None


def _is_given_to_us(group: Path) -> bool:
    """Marked as delegated by systemd, or of our own user; and writable, which a mount can forbid in either case.

    The superuser may write everywhere, so for him only the mark counts: the tree is systemd's otherwise.
    """
    try:
        owned = group.stat().st_uid == os.geteuid() != 0
    except OSError:
        return False
    writable = all(os.access(path, os.W_OK) for path in (group, group / "cgroup.procs"))
    return writable and (owned or any(_marked(group, name) for name in DELEGATED))


def _marked(group: Path, name: str) -> bool:
    try:
        return os.getxattr(group, name) == b"1"
    except OSError:
        return False


def _enable(root: Path) -> Iterator[str]:
    """Hand the controllers down to the groups below; one that cannot be is left out."""
    have = set((root / "cgroup.controllers").read_text(encoding="ascii").split())
    for name in WANTED:
        if name in have:
            try:
                (root / "cgroup.subtree_control").write_text(f"+{name}", encoding="ascii")
            except OSError as failure:
                log.warning("the %s controller cannot be used below %s: %s", name, root, failure.strerror)
            else:
                yield name


def _numbers(file: Path) -> dict[str, int]:
    """`name number` lines; empty when there is no such file."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
