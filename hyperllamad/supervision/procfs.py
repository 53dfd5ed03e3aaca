# Not with pathlib, see below:
# ruff: noqa: PTH115, PTH116, PTH123
"""What /proc says about processes: who they are, whom they belong to, what memory they hold.

Only reads; every function copes with a process that ends meanwhile.  Fields are those of proc(5).

Not with pathlib, which has Python keep every name of every path (it interns them): a look at all processes leaves
their numbers in a table of two megabytes, that is copied when it is full of them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PROC = "/proc"


class Identity(NamedTuple):
    """A process that cannot be mistaken for a later one of the same number."""

    pid: int
    start: int  # clock ticks after boot

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        found = process(self.pid)
        return found is not None and found.identity == self and not found.zombie


class Process(NamedTuple):
    """One line of /proc/PID/stat, as far as we need it."""

    pid: int
    parent: int
    session: int
    start: int  # clock ticks after boot
    zombie: bool

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start)


def read(pid: int, name: str) -> bytes:
    """A file of a process; raises OSError."""
    with open(f"{PROC}/{pid}/{name}", "rb") as file:
        return file.read()


def process(pid: int) -> Process | None:
    """None when there is none of that number."""
    try:
        stat = read(pid, "stat")
    except OSError:
        return None
    # The name in parentheses may hold anything, further parentheses included.
    fields = stat.rpartition(b")")[2].split()
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0] in b"ZX")


def processes() -> Iterator[Process]:
    """Everybody, by number."""
    for entry in os.scandir(PROC):
        if entry.name.isdigit() and (found := process(int(entry.name))) is not None:
            yield found


def identity(pid: int) -> Identity | None:
    """None when there is none of that number."""
    found = process(pid)
    return None if found is None else found.identity


def myself() -> Identity:
    found = identity(os.getpid())
    assert found is not None  # noqa: S101 - we are running
    return found


def descendants(root: int, everybody: Iterable[Process]) -> list[int]:
    """Numbers of `root`'s children and of theirs, without `root`."""
    children: dict[int, list[int]] = defaultdict(list)
    for one in everybody:
        children[one.parent].append(one.pid)
    found = list(children[root])
    for pid in found:  # grows while it is walked
        found.extend(children[pid])
    return found


def is_ours(pid: int) -> bool:
    """Whether it runs under our own user."""
    try:
        return os.stat(f"{PROC}/{pid}").st_uid == os.geteuid()
    except OSError:
        return False


def working_directory(pid: int) -> Path | None:
    """None when it has ended or is not ours to look at; a removed directory keeps its old path."""
    try:
        return Path(os.readlink(f"{PROC}/{pid}/cwd").removesuffix(" (deleted)"))
    except OSError:
        return None


def environment(pid: int) -> list[bytes]:
    """NAME=value as it was at exec; empty when it has ended or is not ours to look at."""
    try:
        return read(pid, "environ").split(b"\0")
    except OSError:
        return []


def command_line(pid: int) -> str:
    """Arguments joined by spaces, or the title a process gave itself; empty when it has ended."""
    try:
        return read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def memory_kills() -> int:
    """How many processes the kernel has killed for memory since the machine started, whoever's they were."""
    lines = Path(PROC, "vmstat").read_bytes().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(b"oom_kill ")), 0)


def boot_id() -> str:
    """Changes with every boot of the machine."""
    return Path(PROC, "sys/kernel/random/boot_id").read_bytes().decode("ascii").strip()


def resident(pids: Iterable[int]) -> int:
    """Bytes of memory that processes of one engine hold together.

    Anonymous pages are summed.  Of file-backed and shared pages only the largest share counts: the processes of one
    engine map the same libraries and weights.  (PSS would be exact, but walks every page table.)
    """
    anonymous, file_backed, shared = 0, 0, 0
    for pid in pids:
        fields = _memory_fields(pid)
        anonymous += fields.get(b"RssAnon", 0)
        file_backed = max(file_backed, fields.get(b"RssFile", 0))
        shared = max(shared, fields.get(b"RssShmem", 0))
    return anonymous + file_backed + shared


def unreclaimable(pids: Iterable[int]) -> int:
    """Bytes of it that the kernel cannot take back: those it counts as not available, unlike pages of mapped files."""
    found = [_memory_fields(pid) for pid in pids]
    shared = max((fields.get(b"RssShmem", 0) for fields in found), default=0)
    return sum(fields.get(b"RssAnon", 0) for fields in found) + shared


def _memory_fields(pid: int) -> dict[bytes, int]:
    try:
        lines = read(pid, "status").splitlines()
    except OSError:
        return {}
    return {
        name: int(value.split()[0]) * 1024
        for name, _, value in (line.partition(b":") for line in lines)
        if name.startswith(b"Rss")
    }
