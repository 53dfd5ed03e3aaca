"""Builds a directory aside and puts it in place in one step, so that nobody ever sees half of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hyperllamad.core.errors import LoadFailedError


@contextlib.contextmanager
def stage(target: Path) -> Iterator[Path]:
    """An empty directory beside `target` that becomes `target` when the block ends well, and vanishes when it does not.

    What an earlier, killed attempt left behind is removed first; the directory is locked while a process works in it.
    Raises LoadFailedError when `target` exists, when another process is building it, and for disks that refuse.
    """
    work = target.with_name(f".{target.name}.partial")
    try:
        if target.exists():
            raise LoadFailedError(f"{target} exists already", hint="remove it first, or name another directory")
        work.mkdir(parents=True, exist_ok=True)
        with _locked(work):
            try:
                _remove_content(work)
                yield work
                work.rename(target)
                _sync(target.parent)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
    except OSError as failure:
        raise LoadFailedError(f"{target} cannot be written: {failure.strerror or failure}") from failure


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[None]:
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


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
