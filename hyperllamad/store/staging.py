"""Builds a directory aside and puts it in place in one step, so that nobody ever sees half of it.

The only case with two steps is a directory that takes the place of another: a power cut between them leaves the new one
complete beside an empty place, and the next attempt of the same kind has only to move it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.store import disk

PARTIAL = ".partial"  # ends the names of what is being built


def partial(target: Path) -> Path:
    """Where `target` is built."""
    return target.with_name(f".{target.name}{PARTIAL}")


@contextlib.contextmanager
def stage(target: Path, *, keep: bool = False, replace: bool = False) -> Iterator[Path]:
    """An empty directory beside `target` that becomes `target` when the block ends well, and vanishes when it does not.

    What an earlier, killed attempt left behind is removed first; the directory is locked while a process works in it.
    With `keep` neither happens: the block finds what the last attempt left, and leaves it to the next.  With `replace`
    the directory takes the place of the target that may exist.

    Raises LoadFailedError when `target` exists, when another process is building it, and for disks that refuse.
    """
    work = partial(target)
    try:
        if target.exists() and not replace:
            raise LoadFailedError(f"{target} exists already", hint="remove it first, or name another directory")
        work.mkdir(parents=True, exist_ok=True)
        with locked(work):
            try:
                if not keep:
                    _remove_content(work)
                yield work
                _put(work, target)
            except BaseException:
                if not keep:
                    shutil.rmtree(work, ignore_errors=True)
                raise
    except OSError as failure:
        raise LoadFailedError(f"{target} cannot be written: {failure.strerror or failure}") from failure


def _put(work: Path, target: Path) -> None:
    sync_tree(work)
    old = target.with_name(f".{target.name}{disk.DELETED}")
    if target.exists():
        if old.exists():
            shutil.rmtree(old)
        disk.rename(target, old)
    disk.rename(work, target)
    if old.exists():
        disk.remove(old)


def sync_tree(directory: Path) -> None:
    """Make everything in a directory last: without it a power cut could leave names without their bytes.

    What links lead to belongs to others, and need not even be ours to open.
    """
    for entry in directory.iterdir():
        if entry.is_symlink():
            continue
        if entry.is_dir():
            sync_tree(entry)
        elif entry.is_file():
            disk.sync(entry)
    disk.sync(directory)


@contextlib.contextmanager
def locked(work: Path) -> Iterator[None]:
    """Hold a directory for this process alone.  Raises LoadFailedError when another has it."""
    lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between our open and our lock the other process may have finished: then what we hold is its result.
            mine = os.path.samestat(os.fstat(lock), work.stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise LoadFailedError(f"another process is writing {work}", hint="try again when it has finished")
        yield
    finally:
        os.close(lock)


def _remove_content(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
