"""What the processes of an engine do: compute, read from disk, wait, or stand stopped.  Reads /proc; judges nothing.

Costs about 10 microseconds for each thread, and an engine has hundreds: for engines that are looked at with suspicion.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import NamedTuple

from hyperllamad.supervision import procfs

LEAST = 0.15  # of one CPU; MAX's idle worker polls with 0.08


class Activity(NamedTuple):
    """Of several processes together, since the reading before."""

    stopped: bool  # one of them was stopped by a signal; being held by a debugger does not count
    computing: bool  # they used a CPU, waited for one, or waited for a disk


class Meter:
    """read() again and again; the first reading says that all compute."""

    def __init__(self) -> None:
        self._at = 0.0
        self._work: dict[int, tuple[float, int]] = {}  # of each process: CPU seconds used or waited for, page faults

    def read(self, pids: Iterable[int]) -> Activity:
        now = time.monotonic()
        before, self._work = self._work, {}
        stopped, computing = False, not before
        used = 0.0
        for pid in pids:
            state, faults = _status(pid)
            stopped = stopped or state == b"T"
            self._work[pid] = (_cpu(pid), faults)
            last = before.get(pid)
            computing = computing or state == b"D" or last is None or faults > last[1]
            if last is not None:
                used += self._work[pid][0] - last[0]
        computing = computing or abs(used) >= LEAST * (now - self._at)  # less than before: a busy thread has ended
        self._at = now
        return Activity(stopped, computing)


def _status(pid: int) -> tuple[bytes, int]:
    """State and major page faults; b"" and 0 for a process that has ended."""
    try:
        fields = procfs.read(pid, "stat").rpartition(b")")[2].split()
    except OSError:
        return b"", 0
    return fields[0], int(fields[9])


def _cpu(pid: int) -> float:
    """Seconds its threads ran, or were ready to and had to wait: on a busy machine the second is most of it."""
    total = 0
    with contextlib.suppress(OSError):
        for thread in os.scandir(f"{procfs.PROC}/{pid}/task"):
            with contextlib.suppress(OSError):
                ran, waited, _ = procfs.read(pid, f"task/{thread.name}/schedstat").split()
                total += int(ran) + int(waited)
    return total / 1e9
