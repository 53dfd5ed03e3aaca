"""Has the kernel put what Python holds in memory into huge pages, once everything is imported.

A request reads a little in each of a thousand pages.  In a process that was idle the processor knows none of their
addresses any more, and looks each one up in memory, in a virtual machine twice over; a huge page is one look for two
megabytes.  Must not know what lies in the memory.  Where the kernel cannot do it (before Linux 6.1), or its
administrator does not want it, nothing happens.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

MADV_COLLAPSE = 25  # linux/mman.h
HUGE = 2 << 20  # bytes of a huge page, on x86-64 and on Arm with pages of 4 KiB
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SMAPS = Path("/proc/self/smaps")

# "55b505afc000-55b506226000 rw-p 00000000 00:00 0   [heap]": private memory with no file behind it.
_OURS = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0 *(\[heap\])?$")


def gather() -> int:
    """Bytes that lie in huge pages now, of those that could."""
    try:
        if "[never]" in SETTING.read_text():
            return 0
        found = list(windows(SMAPS.read_text().splitlines()))
    except OSError:
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return HUGE * len([address for address in found if madvise(address, HUGE, MADV_COLLAPSE) == 0])


def windows(smaps: Iterable[str]) -> Iterator[int]:
    """Where a huge page could lie in memory that is used for the most part.

    Not in what is mostly empty, as the stacks of threads are: there it would only take memory.
    """
    begin = end = 0
    for line in smaps:
        if found := _OURS.match(line):
            begin, end = int(found[1], 16), int(found[2], 16)
        elif line.startswith("Rss:"):
            used = int(line.split()[1]) << 10
            if 2 * used >= end - begin:
                yield from range(-(-begin // HUGE) * HUGE, end - HUGE + 1, HUGE)
        elif "-" in line.partition(" ")[0]:
            begin = end = 0  # of a mapping that is not ours
