"""How much memory there is for us: the machine's, or less where a control group limits it.  Only reads.

Fields are those of proc(5) and of the kernel's cgroup-v2 document.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def read(proc: Path = PROC, cgroups: Path = CGROUPS) -> tuple[int, int]:
    """(total, available) in bytes; (0, 0) where nobody says.

    `available` counts what the kernel would give without pushing anybody out (MemAvailable); inside a limit, what is
    left of it, file cache counted as free.
    """
    total, available = _meminfo(proc)
    for group in _own_groups(proc, cgroups):
        limit = _number(group / "memory.max")
        if limit is not None and (not total or limit < total):
            total = limit
        if limit is not None:
            used = (_number(group / "memory.current") or 0) - _file_cache(group)
            available = min(available, max(0, limit - used))
    return total, available


def _meminfo(proc: Path) -> tuple[int, int]:
    fields = {}
    try:
        for line in (proc / "meminfo").read_bytes().decode("ascii").splitlines():
            name, _, value = line.partition(":")
            fields[name] = int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return 0, 0
    return fields.get("MemTotal", 0), fields.get("MemAvailable", fields.get("MemFree", 0))


def _own_groups(proc: Path, cgroups: Path) -> Iterator[Path]:
    """Our control group and those around it: the narrowest limit of them holds."""
    try:
        lines = (proc / "self/cgroup").read_bytes().decode().splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("0::/"):
            group = cgroups / line[4:]
            yield from (one for one in (group, *group.parents) if one == cgroups or cgroups in one.parents)


def _number(path: Path) -> int | None:
    """None for a file that is not there, or says "max"."""
    try:
        text = path.read_bytes().decode("ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _file_cache(group: Path) -> int:
    """Cached files that may go: inactive_file of memory.stat."""
    try:
        lines = (group / "memory.stat").read_bytes().decode("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
