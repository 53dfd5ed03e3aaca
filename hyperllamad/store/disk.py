"""Changes to the disk that survive a power cut: a file or a name is there whole, or as it was before.

Every change the store makes goes through here, so that a test can stop the world at each one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hyperllamad.core.errors import DiskFullError, HyperLlamaError, LoadFailedError, StoreError

DELETED = ".deleted"  # ends the names of what is being removed; such names are never looked at
RESERVE = 64 << 20  # bytes that pulls and uploads leave free, for logs and the like
TEMPORARY = ".tmp"  # ends the names of files that are being written


def write(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=TEMPORARY, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def rename(source: Path, target: Path) -> None:
    """Give a file or directory another name, in place of a file that may have it.  Raises OSError."""
    os.rename(source, target)  # noqa: PTH104  # tests replace it
    sync(target.parent)


def link(source: Path, target: Path) -> None:
    """Let a file have a second name, or copy it where the file system has no such thing.  Raises OSError."""
    try:
        os.link(source, target)  # tests replace it
    except OSError as failure:
        if failure.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK}:
            raise
        temporary = target.with_name(f".{target.name[:200]}{TEMPORARY}")
        shutil.copyfile(source, temporary)
        sync(temporary)
        rename(temporary, target)


def remove(path: Path) -> None:
    """Take a file or a whole directory away; of a link only the link.  Raises OSError.

    A directory first gets a name that is never looked at, so that nobody sees half of it.
    """
    if path.is_symlink() or not path.is_dir():
        os.unlink(path)  # noqa: PTH108  # tests replace it
    else:
        hidden = path if path.name.endswith(DELETED) else path.with_name(f".{path.name}{DELETED}")
        if hidden != path:
            if hidden.exists():
                shutil.rmtree(hidden)
            rename(path, hidden)
        shutil.rmtree(hidden)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make the entries of a directory, or the bytes of a file, last.  Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def size(path: Path) -> int:
    """Bytes of a file, or of everything in a directory; what vanishes meanwhile counts nothing."""
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        return sum(size(entry) for entry in path.iterdir())
    except FileNotFoundError:
        return 0


def check_room(directory: Path, needed: int, what: str) -> None:
    """Raises DiskFullError when `needed` bytes for `what` do not fit on the file system of `directory`."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        sentence = f"{what} needs {human(needed)}, but {human(free)} are free in {directory}"
        raise DiskFullError(sentence, hint="make room, or set `paths.state` to a larger disk")


def human(count: float) -> str:
    """Bytes as people say them, in powers of ten as Ollama does: 4.7 GB."""
    for unit, step in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count:.0f} B"


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the block's OSError into a StoreError, or DiskFullError, about `what`: "the variant m:latest"."""
    try:
        yield
    except HyperLlamaError:
        raise
    except OSError as failure:
        raise refusal(what, failure) from failure


def unreadable(path: object, failure: OSError) -> LoadFailedError:
    """The error for a file of a model that cannot be read."""
    denied = failure.errno in {errno.EACCES, errno.EPERM}
    hint = "the daemon's user must be able to read it, and to enter every directory on the way"
    sentence = f"{failure.filename or path} cannot be read: {failure.strerror}"
    return LoadFailedError(sentence, hint=hint if denied else "check the path and the disk")


def refusal(what: str, failure: OSError) -> StoreError:
    """The error for a disk that refuses."""
    if failure.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(f"{what} cannot be written: the disk is full", hint="make room and try again")
    where = f" ({failure.filename})" if failure.filename else ""
    return StoreError(f"{what} cannot be written: {failure.strerror or failure}{where}", hint="check who owns it")
