"""Reads the header of a GGUF file: metadata and tensor infos, never the weights.  Knows nothing of models or names.

Our own reader, because the `gguf` package loads numpy (30 MB of memory the daemon would keep) and builds numpy arrays
for every token: 20 s for a vocabulary of 256,000, which takes 0.1 s here.  This one steps over arrays unless asked for
them, and is bounded: at most MAX_HEADER bytes are read, and no number in the file is believed before the bytes it
promises are there.
Layout of the format: docs/gguf.md in the ggml repository, versions 2 and 3.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.store import disk
from hyperllamad.store.ggml import TENSOR_TYPES, TensorType

MAX_HEADER = 128 << 20  # bytes; the largest vocabularies seen make headers of some 20 MB
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_ARRAY = 1 << 22  # elements
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
_FIRST_READ = 1 << 20  # bytes
_HINT = "the file is damaged or was not downloaded completely: fetch it again"
_FLOAT32_MAX = 3.4028234e38

Value = str | int | float | bool | list[str] | list[int] | list[float] | list[bool] | None

_FLOAT32, _BOOL, _STRING, _ARRAY = 6, 7, 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", _FLOAT32: "f", _BOOL: "B", 10: "Q", 11: "q", 12: "d"}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's place.  `shape` as the file has it: the fastest-moving dimension first."""

    name: str
    type: str  # "Q4_1"; "unknown (77)" for a type this reader does not know
    shape: tuple[int, ...]
    offset: int  # bytes from the beginning of the file
    size: int  # bytes; 0 for an unknown type

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """Everything before the weights.  Arrays in `metadata` are None unless they were asked for."""

    path: str
    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int  # where the weights begin
    file_size: int
    sha256: str  # of the header's bytes

    @property
    def missing_bytes(self) -> int:
        """How many bytes the file lacks to hold all its tensors: 0 unless it was cut short."""
        end = max((tensor.offset + tensor.size for tensor in self.tensors), default=0)
        return max(0, end - self.file_size)

    def text(self, key: str) -> str:
        """The string under `key`, or "" when there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def integer(self, key: str) -> int:
        """The whole number under `key`, or 0 when there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0


def read(path: Path, *, arrays: bool = False) -> Header:
    """The header of the GGUF file at `path`; `arrays` keeps arrays (token lists) instead of None in their place.

    Raises LoadFailedError: not readable, not GGUF, or a header that ends early or makes no sense.
    """
    try:
        # Asked before opening: opening a named pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise LoadFailedError(f"{path} is not a regular file")
        with path.open("rb") as file:
            return _header(_Cursor(file, str(path), os.fstat(file.fileno()).st_size), arrays=arrays)
    except OSError as failure:
        raise disk.unreadable(path, failure) from failure


def truncated(header: Header) -> LoadFailedError:
    """The error for a file that lacks the end of its weights."""
    whole = header.file_size + header.missing_bytes
    return LoadFailedError(f"{header.path} is truncated: {header.file_size} of {whole} bytes are there", hint=_HINT)


class _Cursor:
    """A moving position in the front of a file, which is read only as far as it is needed."""

    def __init__(self, file: BinaryIO, path: str, size: int) -> None:
        self.path, self.size, self.at = path, size, 0
        self.part = "the header"  # what is being read, for error sentences
        self._file, self._data = file, bytearray()

    def damaged(self, what: str) -> LoadFailedError:
        return LoadFailedError(f"{self.path} is not a usable GGUF file: {what}", hint=_HINT)

    def need(self, count: int) -> int:
        """Make sure `count` more bytes are there, move past them, and return where they begin."""
        begin, end = self.at, self.at + count
        if end > len(self._data):
            self._read_until(end)
        self.at = end
        return begin

    def _read_until(self, end: int) -> None:
        if end > self.size:
            raise self.damaged(f"{self.part} goes beyond the end of the file ({self.size} bytes)")
        if end > MAX_HEADER:
            raise self.damaged(f"{self.part} lies beyond the first {MAX_HEADER >> 20} MiB, where no header ends")
        target = min(max(end, 2 * len(self._data), _FIRST_READ), self.size, MAX_HEADER)
        self._data += self._file.read(target - len(self._data))
        if end > len(self._data):
            raise self.damaged("it became shorter while it was read")

    def u32(self) -> int:
        number: int = _U32.unpack_from(self._data, self.need(4))[0]
        return number

    def u64(self) -> int:
        number: int = _U64.unpack_from(self._data, self.need(8))[0]
        return number

    def take(self, count: int) -> bytes:
        begin = self.need(count)
        return bytes(self._data[begin : self.at])

    def string(self) -> str:
        return self.take(self.u64()).decode(errors="replace")

    def numbers(self, kind: int, count: int) -> list[int] | list[float] | list[bool]:
        code = _SCALARS[kind]
        begin = self.need(count * struct.calcsize(f"<{code}"))
        values = struct.unpack_from(f"<{count}{code}", self._data, begin)
        return [value != 0 for value in values] if kind == _BOOL else list(values)

    def skip_strings(self, count: int) -> None:
        # Written flat: this loop runs half a million times for a large vocabulary.
        data, at, unpack = self._data, self.at, _U64.unpack_from
        for _ in range(count):
            if at + 8 > len(data):
                self.at = at
                self.need(8)
            at += 8 + unpack(data, at)[0]
        self.at = at
        self.need(0)

    def sha256(self) -> str:
        return hashlib.sha256(memoryview(self._data)[: self.at]).hexdigest()


def _header(cursor: _Cursor, *, arrays: bool) -> Header:
    version, tensor_count, key_count = _counts(cursor)
    metadata: dict[str, Value] = {}
    for number in range(key_count):
        cursor.part = f"metadata key {number + 1} of {key_count}"
        key = cursor.string()
        cursor.part = f"the value of {key[:80]!r}"
        metadata[key] = _value(cursor, arrays=arrays)
    infos = []
    for number in range(tensor_count):
        cursor.part = f"the description of tensor {number + 1} of {tensor_count}"
        infos.append(_tensor(cursor))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= MAX_HEADER:
        raise cursor.damaged(f"its alignment is {alignment!r}")
    start = -(-cursor.at // alignment) * alignment
    return Header(
        path=cursor.path,
        version=version,
        metadata=metadata,
        tensors=tuple(Tensor(name, kind, shape, start + offset, size) for name, kind, shape, offset, size in infos),
        data_offset=start,
        file_size=cursor.size,
        sha256=cursor.sha256(),
    )


def _counts(cursor: _Cursor) -> tuple[int, int, int]:
    """Version, number of tensors, number of metadata keys."""
    if cursor.size < 4 or cursor.take(4) != b"GGUF":
        raise LoadFailedError(f"{cursor.path} is not a GGUF file", hint="GGUF files begin with the letters GGUF")
    version = cursor.u32()
    if version not in {2, 3}:
        kind = "big-endian" if version & 0xFFFF == 0 else f"version {version}"
        raise LoadFailedError(
            f"{cursor.path} is a {kind} GGUF file", hint="versions 2 and 3, little-endian, can be read"
        )
    tensors, keys = cursor.u64(), cursor.u64()
    if tensors > MAX_TENSORS or keys > MAX_KEYS:
        raise cursor.damaged(f"it claims {tensors} tensors and {keys} metadata keys")
    return version, tensors, keys


def _value(cursor: _Cursor, *, arrays: bool) -> Value:
    kind = cursor.u32()
    if kind == _STRING:
        return cursor.string()
    if kind in _SCALARS:
        value = cursor.numbers(kind, 1)[0]
        return _shortest(value) if kind == _FLOAT32 else value
    if kind != _ARRAY:
        raise cursor.damaged(f"{cursor.part} has the unknown type {kind}")
    element, count = cursor.u32(), cursor.u64()
    if count > MAX_ARRAY:
        raise cursor.damaged(f"{cursor.part} claims {count} elements")
    if element == _STRING:
        if arrays:
            return [cursor.string() for _ in range(count)]
        cursor.skip_strings(count)
    elif element in _SCALARS:
        if arrays:
            return cursor.numbers(element, count)
        cursor.need(count * struct.calcsize(f"<{_SCALARS[element]}"))
    else:
        raise cursor.damaged(f"{cursor.part} is an array of the unknown type {element}")
    return None


def _shortest(value: float) -> float:
    """The number with the fewest digits that is the same as `value` in 32 bits: 1e-05, not 9.999999747378752e-06."""
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        if abs(short) < _FLOAT32_MAX and struct.pack("<f", short) == struct.pack("<f", value):
            return short
    return value


def _tensor(cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int, int]:
    """Name, type, shape, offset within the weights, bytes."""
    name, dimensions = cursor.string(), cursor.u32()
    if dimensions > MAX_DIMENSIONS:
        raise cursor.damaged(f"{cursor.part} claims {dimensions} dimensions")
    shape = tuple(cursor.u64() for _ in range(dimensions))
    number, offset = cursor.u32(), cursor.u64()
    # New types appear in llama.cpp every year: one we cannot measure must not hide the model.
    kind = TENSOR_TYPES.get(number, TensorType(f"unknown ({number})", 1, 0))
    rows = math.prod(shape[1:])
    size = -(-shape[0] // kind.block) * kind.size * rows if shape else kind.size
    return name, kind.name, shape, offset, size
