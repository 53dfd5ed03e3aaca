"""64 hex digits that name the weights, without reading all of them: hashing 100 GB at every start would take minutes.

Hashed are sizes, headers, the small files of a directory, and blocks sampled all over the data.  Copies of the same
files have the same digest wherever they lie and whenever they were written; other weights differ in every block.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hyperllamad.store import gguf, hf

BLOCK = 4096  # bytes per sample
BLOCKS = 16  # samples of a file of weights
FULL_BLOCKS = 1024  # samples of any other file: all of it up to 4 MiB


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def of_gguf(headers: Sequence[gguf.Header]) -> str:
    """The digest of all parts of a GGUF model.  Raises OSError."""
    total = hashlib.sha256(b"gguf\n")
    for header in headers:
        total.update(header.sha256.encode())
        _sample(total, Path(header.path), header.data_offset, BLOCKS)
    return total.hexdigest()


def of_directory(directory: hf.Directory, files: Sequence[Path]) -> str:
    """The digest of a Hugging Face directory; `files` are those that say what the model is.  Raises OSError."""
    total = hashlib.sha256(b"safetensors\n")
    for path in sorted(files):
        if path in directory.shards:
            header = directory.shards[path]
            total.update(path.name.encode() + header.raw)
            _sample(total, path, header.data_offset, BLOCKS)
        elif path.suffix != ".safetensors":
            total.update(path.name.encode())
            _sample(total, path, 0, FULL_BLOCKS)
    return total.hexdigest()


def _sample(total: _Hash, path: Path, begin: int, blocks: int) -> None:
    """Add the file's size and up to `blocks` blocks from `begin` to its end, the last bytes always among them."""
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        total.update(f"\n{end}\n".encode())
        last = max(begin, end - BLOCK)
        step = max(BLOCK, -(-(last - begin) // (blocks - 1)))
        for offset in (*range(begin, last, step), last):
            file.seek(offset)
            total.update(file.read(BLOCK))
