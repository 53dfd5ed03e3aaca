"""Files that clients upload under their digest, to make models of them.

They lie in `.blobs` in the directory of the models, as `sha256-<64 hex digits>`; a model made of one is a second name
(hard link) for the same bytes.  So a blob with one name belongs to no model, and that is how unused ones are found.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread

from hyperllamad.core.errors import BadRequestError
from hyperllamad.store import disk

YOUNG = 3600.0  # seconds in which an upload may still become a model
BATCH = 4 << 20  # bytes handed to the disk at once: small enough to keep, large enough to be worth a thread
_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


def parse_digest(text: str) -> str:
    """The 64 hex digits of `sha256:...` or `sha256-...`, in lower case; raises BadRequestError in Ollama's words."""
    found = _DIGEST.fullmatch(text)
    if found is None:
        raise BadRequestError("invalid digest format")
    return found[1].lower()


class Blobs:
    """The uploaded files.  No state but what lies on the disk."""

    def __init__(self, models: Path) -> None:
        self.directory = models / ".blobs"

    def path(self, digest: str) -> Path:
        """Where the blob lies, or would.  `digest` as a client writes it; raises BadRequestError."""
        return self.directory / f"sha256-{parse_digest(digest)}"

    def has(self, digest: str) -> bool:
        """Whether it is here, whole.  Raises BadRequestError."""
        return self.path(digest).is_file()

    async def receive(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        """Store what `chunks` bring; False when it was here already (then nothing of them is read).

        May run several times at once, for the same digest too.  Raises BadRequestError when the bytes are not those of
        the digest, DiskFullError, StoreError; of an upload that fails or is cancelled nothing remains.
        """
        target = self.path(digest)
        if target.is_file():
            return False
        with disk.explained(f"the blob {target.name}"), _temporary(target) as (file, temporary):
            found = await _write(file, self.directory, chunks)
            if found != parse_digest(digest):
                expected = target.name.replace("-", ":")
                raise BadRequestError(f'digest mismatch, expected "{expected}", got "sha256:{found}"')
            await anyio.to_thread.run_sync(_finish, file, temporary, target)
        return True

    def inodes(self, paths: Iterable[Path]) -> frozenset[int]:
        """Which of these files share their bytes with others: to be given to release() when they are gone."""
        shared = set()
        for path in paths:
            with contextlib.suppress(OSError):
                status = path.stat()
                if status.st_nlink > 1:
                    shared.add(status.st_ino)
        return frozenset(shared)

    def release(self, inodes: frozenset[int]) -> None:
        """Remove the blobs with these inodes that no model uses any more.  Raises OSError."""
        for path in self._all() if inodes else ():
            status = path.stat()
            if status.st_ino in inodes and status.st_nlink == 1:
                disk.remove(path)

    def unused(self) -> tuple[Path, ...]:
        """Blobs of no model and uploads that broke off, unless they are so young that somebody may be about it."""
        before = time.time() - YOUNG
        broken = tuple(self.directory.glob(f".*{disk.TEMPORARY}"))
        found = []
        for path in (*self._all(), *broken):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if status.st_nlink == 1 and status.st_mtime < before:
                    found.append(path)
        return tuple(found)

    def _all(self) -> tuple[Path, ...]:
        return tuple(sorted(self.directory.glob("sha256-*")))


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file beside `target` that is gone afterwards, unless it has got another name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=disk.TEMPORARY, dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


async def _write(file: BinaryIO, directory: Path, chunks: AsyncIterator[bytes]) -> str:
    """Write everything; the 64 hex digits of what it was."""
    total = hashlib.sha256()
    batch = bytearray()

    def flush() -> None:
        disk.check_room(directory, disk.RESERVE + len(batch), "an upload, with the room that is kept free,")
        total.update(batch)
        file.write(batch)
        batch.clear()

    async for chunk in chunks:
        batch += chunk
        if len(batch) >= BATCH:
            await anyio.to_thread.run_sync(flush)
    await anyio.to_thread.run_sync(flush)
    return total.hexdigest()


def _finish(file: BinaryIO, temporary: Path, target: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    disk.rename(temporary, target)
