"""The safetensors container: reads headers, writes whole files.  Knows bytes and shapes, nothing of models or numpy.

A file is eight bytes (length of the header, little-endian), a JSON header {name: {dtype, shape, data_offsets}}, then
the data without gaps.  Our own writer, because it streams one tensor at a time and takes bfloat16 as bytes; the numpy
flavour of the package holds the whole model in memory and has no bfloat16.  Format: README of huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.store import disk

MAX_HEADER = (
    16 << 20
)  # bytes, enough for 100,000 tensors; the format would allow 100 MB, which as Python objects is much
WIDTHS = {"BF16": 2, "F32": 4}  # bytes per value, of what is written
_HINT = "the file is damaged or was not downloaded completely: fetch it again"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file; `size` in bytes, `shape` outermost dimension first."""

    name: str
    dtype: str  # "BF16", "F8_E4M3", ...
    shape: tuple[int, ...]
    size: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """What one file holds; `raw` is the JSON as it lies there."""

    tensors: tuple[Tensor, ...]
    data_offset: int
    file_size: int
    raw: bytes


def read(path: Path) -> Header:
    """The header of one file.  Raises LoadFailedError: not readable, damaged, or shorter than its tensors need."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise LoadFailedError(f"{path} is not a regular file")
        with path.open("rb") as file:
            return _header(path, file, os.fstat(file.fileno()).st_size)
    except OSError as failure:
        raise disk.unreadable(path, failure) from failure


def _header(path: Path, file: BinaryIO, size: int) -> Header:
    length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER, size - 8):
        what = "is empty" if size == 0 else f"has {size} bytes, but its header alone would take {length}"
        raise _unusable(path, what)
    raw = file.read(length)
    try:
        tree = json.loads(raw)
        tree.pop("__metadata__", None)
        tensors = tuple(_tensor(name, entry) for name, entry in tree.items())
        whole = 8 + length + max((entry["data_offsets"][1] for entry in tree.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as failure:
        raise _unusable(path, "has a garbled header") from failure
    if whole > size:
        raise LoadFailedError(f"{path} is truncated: {size} of {whole} bytes are there", hint=_HINT)
    if whole < size:
        raise _unusable(path, f"has {size - whole} bytes that belong to no tensor")
    return Header(tensors, 8 + length, size, raw)


def _unusable(path: Path, what: str) -> LoadFailedError:
    return LoadFailedError(f"{path} is not a usable safetensors file: it {what}", hint=_HINT)


def _tensor(name: str, entry: Mapping[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    shape, dtype = tuple(entry["shape"]), entry["dtype"]
    numbers = (begin, end, *shape)
    if not isinstance(dtype, str) or not all(type(n) is int and n >= 0 for n in numbers) or begin > end:
        raise ValueError(name)
    return Tensor(name, dtype, shape, end - begin)


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor to be written; `data` gives its bytes when its turn comes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Callable[[], bytes | memoryview]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * WIDTHS[self.dtype]


def write(path: Path, sources: Sequence[Source], metadata: Mapping[str, str]) -> None:
    """Write a new file and bring it to the disk.  Raises OSError, and ValueError for data of the wrong length."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for source in sources:
        entries[source.name] = {
            "dtype": source.dtype,
            "shape": source.shape,
            "data_offsets": [end, end := end + source.size],
        }
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format asks for data at a multiple of eight
    with path.open("xb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for source in sources:
            if file.write(source.data()) != source.size:
                raise ValueError(f"{source.name} is not of {source.size} bytes")
        file.flush()
        os.fsync(file.fileno())
