"""The safetensors container, checked against the package of that name."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.store import safetensors_file
from hyperllamad.store.safetensors_file import Source
from tests.store.files import safetensors_bytes


def failure(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(LoadFailedError) as caught:
        safetensors_file.read(path)
    return caught.value.message


def test_the_package_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    halves, floats = bytes(range(12)), struct.pack("<2f", 1.5, -2.0)
    sources = [Source("b", "BF16", (3, 2), lambda: halves), Source("a", "F32", (2,), lambda: floats)]
    safetensors_file.write(path, sources, {"format": "pt"})
    theirs = dict(safetensors.deserialize(path.read_bytes()))
    assert {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in theirs.items()} == {
        "b": ("BF16", (3, 2), halves),
        "a": ("F32", (2,), floats),
    }
    header = safetensors_file.read(path)
    assert [(t.name, t.dtype, t.shape, t.size, t.elements) for t in header.tensors] == [
        ("b", "BF16", (3, 2), 12, 6),
        ("a", "F32", (2,), 8, 2),
    ]
    assert header.data_offset % 8 == 0


def test_a_source_that_gives_other_bytes_than_it_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not of 8 bytes"):
        safetensors_file.write(tmp_path / "x", [Source("a", "F32", (2,), lambda: b"short")], {})


def test_truncated_at_every_byte(tmp_path: Path) -> None:
    whole = safetensors_bytes({"a": ("F32", (3,), 12), "b": ("F16", (2, 2), 8)})
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in range(len(whole)):
        sentence = failure(tmp_path / "x.safetensors", whole[:length])
        assert "is truncated" in sentence if length >= header else "is not a usable" in sentence, (length, sentence)
    (tmp_path / "x.safetensors").write_bytes(whole)
    assert len(safetensors_file.read(tmp_path / "x.safetensors").tensors) == 2
    assert "5 bytes that belong to no tensor" in failure(tmp_path / "x.safetensors", whole + bytes(5))


@pytest.mark.parametrize(
    "tree",
    [
        [],
        {"a": 1},
        {"a": {}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}},
        {"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}},
        {"a": {"dtype": 7, "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": None, "data_offsets": [0, 4]}},
    ],
)
def test_headers_that_make_no_sense(tmp_path: Path, tree: Any) -> None:
    header = json.dumps(tree).encode()
    assert "garbled" in failure(tmp_path / "x", struct.pack("<Q", len(header)) + header + bytes(4))


def test_bytes_that_make_no_sense(tmp_path: Path) -> None:
    deep = b"[" * 200_000
    assert "garbled" in failure(tmp_path / "x", struct.pack("<Q", len(deep)) + deep)
    assert "garbled" in failure(tmp_path / "x", struct.pack("<Q", 4) + b"\xff\xfe\0\0")
    assert "its header alone would take" in failure(tmp_path / "x", b"\xff" * 100)
    assert "is empty" in failure(tmp_path / "x", b"")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LoadFailedError, match="not a regular file"):
        safetensors_file.read(tmp_path / "pipe")
    with pytest.raises(LoadFailedError, match="No such file"):
        safetensors_file.read(tmp_path / "gone")


reached: Counter[str] = Counter()
_WHOLE = safetensors_bytes({"a": ("F32", (3,), 12), "b": ("F16", (2, 2), 8)}, format="pt")


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A good file with a few bytes replaced by others, digits and brackets above all."""
    content = bytearray(_WHOLE)
    for _ in range(draw(st.integers(1, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(
            st.one_of(st.sampled_from(b'0123456789[]{}",:'), st.integers(0, 255))
        )
    return bytes(content)


@settings(max_examples=1000, deadline=None)
@given(spoiled())
def read_random_bytes(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            safetensors_file.read(Path(file.name))
        except LoadFailedError:
            reached["refused"] += 1
        else:
            reached["read"] += 1


def test_random_bytes_raise_nothing_else() -> None:
    reached.clear()
    read_random_bytes()
    assert reached["read"] > 20
    assert reached["refused"] > 100
