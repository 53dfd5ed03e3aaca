"""Where a stuck engine's threads are: lines for its log, taken before it is killed.  Reads; judges nothing.

/proc tells of every thread its name, its state and the kernel function it waits in.  Where py-spy is installed it tells
the Python frames as well, which stops each process for a moment.  Blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

PATIENCE = 5.0  # seconds for py-spy, of each process
MOST = 200  # lines of one process's frames


def of(pids: Sequence[int]) -> Iterator[str]:
    """A few lines for each process; those that have ended are left out."""
    spy = shutil.which("py-spy")
    for pid in pids:
        for (name, state, place), count in Counter(_threads(pid)).most_common():
            yield f"stuck: process {pid}: {count} x {name}, state {state}, in {place or 'user space'}"
        if spy is not None:
            yield from _frames(spy, pid)


def _threads(pid: int) -> Iterator[tuple[str, str, str]]:
    """(name, state, kernel function) of each thread."""
    with contextlib.suppress(OSError):
        for thread in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                name, _, rest = Path(thread.path, "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
                place = Path(thread.path, "wchan").read_text(encoding="ascii").strip()
                yield name.partition("(")[2], rest.split()[0], "" if place == "0" else place


def _frames(spy: str, pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [spy, "dump", "--pid", str(pid)], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        for line in done.stdout.splitlines()[:MOST]:
            yield f"stuck: {line}"
