"""The GGUF reader: what it reads, and that nothing but a plain sentence comes out of a bad file."""

from __future__ import annotations

import os
import struct
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import gguf as package
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.store import gguf
from tests.store import files
from tests.store.files import Tensor, Typed, f32, gguf_bytes, small_gguf


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return path


def failure(path: Path) -> str:
    with pytest.raises(LoadFailedError) as caught:
        gguf.read(path)
    return caught.value.message


def test_scalars_of_every_type(tmp_path: Path) -> None:
    wanted = {0: 200, 1: -100, 2: 60000, 3: -30000, 4: 1 << 31, 5: -(1 << 31), 6: 0.5, 10: 1 << 63, 11: -5, 12: 1e300}
    metadata: dict[str, Any] = {f"k{kind}": Typed(kind, number) for kind, number in wanted.items()}
    metadata |= {"yes": True, "no": False, "text": "grüß ☃"}
    found = gguf.read(write(tmp_path, gguf_bytes(metadata))).metadata
    assert found == {
        **{f"k{kind}": number for kind, number in wanted.items()},
        "yes": True,
        "no": False,
        "text": "grüß ☃",
    }
    assert found["yes"] is True


@pytest.mark.parametrize("number", [1e-05, 1e-06, 10000.0, 0.1, 3.4028234663852886e38, 1.17549435e-38, 16777216.0, 0.0])
def test_short_floats_stay_short(tmp_path: Path, number: float) -> None:
    """A float of 32 bits is shown with as many digits as it has, and remains the same number."""
    found = gguf.read(write(tmp_path, gguf_bytes({"k": number}))).metadata["k"]
    assert isinstance(found, float)
    assert struct.pack("<f", found) == struct.pack("<f", number)
    assert len(repr(found)) <= len(repr(number))


def test_arrays_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    arrays = {
        "strings": ["a", "", "ccc"],
        "numbers": [1, -2, 3],
        "floats": [0.5, 2.0],
        "flags": Typed(7, [1, 0]),
        "none": [],
    }
    path = write(tmp_path, gguf_bytes({**arrays, "after": 7}))
    assert gguf.read(path).metadata == {**dict.fromkeys(arrays), "after": 7}
    assert gguf.read(path, arrays=True).metadata == {**arrays, "flags": [True, False], "after": 7}


def test_tensors_and_sizes(tmp_path: Path) -> None:
    tensors = [
        f32("a", 3, 2),
        Tensor("q", (64, 2), 2, bytes(72)),
        Tensor("new", (5,), 200, bytes(9)),
        Tensor("s", (), 0, bytes(4)),
    ]
    header = gguf.read(write(tmp_path, gguf_bytes({"general.alignment": 64}, tensors, alignment=64)))
    assert [(t.name, t.type, t.shape, t.size, t.elements) for t in header.tensors] == [
        ("a", "F32", (3, 2), 24, 6),
        ("q", "Q4_0", (64, 2), 72, 128),
        ("new", "unknown (200)", (5,), 0, 5),
        ("s", "F32", (), 4, 1),
    ]
    assert [t.offset - header.data_offset for t in header.tensors] == [0, 64, 192, 256]
    assert header.data_offset % 64 == 0
    assert header.missing_bytes == 0


def test_reads_what_the_gguf_package_writes(tmp_path: Path) -> None:
    path = tmp_path / "theirs.gguf"
    writer = package.GGUFWriter(path, "llama")
    writer.add_context_length(77)
    writer.add_token_list(["x", "y"])
    writer.add_rope_freq_base(100000.0)
    weights = np.arange(64 * 3, dtype=np.float32).reshape(3, 64)
    kind = package.GGMLQuantizationType.Q4_1
    writer.add_tensor("blk.0.attn_q.weight", package.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = gguf.read(path, arrays=True)
    assert header.metadata["llama.context_length"] == 77
    assert header.metadata["llama.rope.freq_base"] == 100000.0
    assert header.metadata["tokenizer.ggml.tokens"] == ["x", "y"]
    (tensor,) = header.tensors
    assert (tensor.type, tensor.shape, tensor.size) == ("Q4_1", (64, 3), 3 * 2 * 20)
    assert path.read_bytes()[tensor.offset :][: tensor.size] == package.quantize(weights, kind).tobytes()


def test_sizes_of_all_types_are_those_of_llama_cpp() -> None:
    theirs = {kind.value: (kind.name, *package.GGML_QUANT_SIZES[kind]) for kind in package.GGMLQuantizationType}
    assert theirs.items() <= {number: tuple(kind) for number, kind in gguf.TENSOR_TYPES.items()}.items()


def test_a_header_larger_than_the_first_read(tmp_path: Path) -> None:
    tokens = [f"token {number} " + "x" * 100 for number in range(30_000)]
    header = gguf.read(path := write(tmp_path, gguf_bytes({"tokens": tokens, "after": 1}, [f32("t", 4)])))
    assert header.data_offset > 3 << 20
    assert header.metadata == {"tokens": None, "after": 1}
    assert gguf.read(path, arrays=True).metadata["tokens"] == tokens


def test_truncated_weights_are_measured(tmp_path: Path) -> None:
    whole = gguf_bytes({}, [f32("a", 8), f32("b", 8)])
    path = write(tmp_path, whole[:-5])
    header = gguf.read(path)
    assert header.missing_bytes == 5
    sentence = gguf.truncated(header).message
    assert sentence == f"{path} is truncated: {len(whole) - 5} of {len(whole)} bytes are there"


def test_truncated_at_every_byte_of_the_header(tmp_path: Path) -> None:
    whole = small_gguf()
    start = gguf.read(write(tmp_path, whole)).data_offset
    padding = 31
    for length in range(start - padding):
        sentence = failure(write(tmp_path, whole[:length]))
        assert "model.gguf is not a" in sentence, (length, sentence)
    assert "goes beyond the end of the file" in failure(write(tmp_path, whole[:100]))


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    assert "is not a GGUF file" in failure(write(tmp_path, b"not a model " * 1000))
    assert "is not a GGUF file" in failure(write(tmp_path, b""))
    assert "is a version 1 GGUF" in failure(write(tmp_path, gguf_bytes({}, version=1)))
    assert "is a version 99 GGUF" in failure(write(tmp_path, gguf_bytes({}, version=99)))
    assert "is a big-endian GGUF" in failure(write(tmp_path, gguf_bytes({}, version=3 << 24)))
    assert "No such file" in failure(tmp_path / "gone.gguf")
    assert "not a regular file" in failure(tmp_path)
    os.mkfifo(tmp_path / "pipe.gguf")
    assert "not a regular file" in failure(tmp_path / "pipe.gguf")


HUGE = [1 << 20, 1 << 32, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]


@pytest.mark.parametrize("number", HUGE)
def test_absurd_numbers_are_not_believed(tmp_path: Path, number: int) -> None:
    big = struct.pack("<Q", number)
    key = files.string("k")
    one_key = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    bodies = {
        "a key": one_key + big + b"k",
        "a string": one_key + key + struct.pack("<I", files.STRING) + big + b"x",
        "strings": one_key + key + struct.pack("<II", files.ARRAY, files.STRING) + big + big,
        "one long string": one_key + key + struct.pack("<IIQ", files.ARRAY, files.STRING, 1) + big,
        "numbers": one_key + key + struct.pack("<II", files.ARRAY, files.U32) + big,
        "keys": b"GGUF" + struct.pack("<IQ", 3, 0) + big,
        "tensors": b"GGUF" + struct.pack("<I", 3) + big + bytes(8),
    }
    for what, body in bodies.items():
        assert "not a usable GGUF file" in failure(write(tmp_path, body + bytes(64))), what


def test_a_terabyte_of_nothing_is_not_read(tmp_path: Path) -> None:
    """A sparse file full of empty strings: counts are bounded, and so is what is read."""
    array = struct.pack("<II", files.ARRAY, files.STRING)
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + files.string("k") + array
    path = write(tmp_path, start + struct.pack("<Q", gguf.MAX_ARRAY + 1))
    os.truncate(path, 1 << 40)
    assert f"claims {gguf.MAX_ARRAY + 1} elements" in failure(path)
    path.write_bytes(start + struct.pack("<QQ", 2, gguf.MAX_HEADER))
    os.truncate(path, 1 << 40)
    assert "lies beyond the first 128 MiB" in failure(path)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (gguf_bytes({"k": 1})[:-8] + struct.pack("<II", 13, 1), "unknown type 13"),
        (gguf_bytes({"k": []})[:-12] + struct.pack("<IQ", 9, 1) + bytes(64), "array of the unknown type 9"),
        (gguf_bytes({"general.alignment": 0}), "alignment is 0"),
        (gguf_bytes({"general.alignment": "wide"}), "alignment is 'wide'"),
        (gguf_bytes({}, [Tensor("t", (1, 1, 1, 1, 1), 0, bytes(4))]), "claims 5 dimensions"),
    ],
)
def test_nonsense_is_named(tmp_path: Path, body: bytes, says: str) -> None:
    assert says in failure(write(tmp_path, body))


def test_a_tensor_of_absurd_size_is_only_missing(tmp_path: Path) -> None:
    huge = (1 << 64) - 1
    header = gguf.read(write(tmp_path, gguf_bytes({}, [Tensor("t", (huge,) * 4, 0, b"")])))
    assert header.missing_bytes > 0


reached: Counter[str] = Counter()
_WHOLE = small_gguf()


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A good file with some bytes replaced, cut or put in, or noise after a good beginning."""
    content = bytearray(_WHOLE)
    for _ in range(draw(st.integers(1, 3))):
        at, put = draw(st.integers(0, len(content))), draw(st.binary(max_size=9))
        content[at : at + draw(st.sampled_from([len(put), len(put), 0, 5]))] = put
    return bytes(content)


@settings(max_examples=1500, deadline=None)
@given(st.one_of(spoiled(), st.binary(max_size=200).map(lambda tail: b"GGUF\x03\0\0\0" + tail)))
def read_random_bytes(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(content)
        file.flush()
        for arrays in (False, True):
            try:
                header = gguf.read(Path(file.name), arrays=arrays)
            except LoadFailedError as caught:
                reached["refused"] += 1
                assert caught.message.startswith(file.name)
            else:
                reached["read"] += 1
                reached["missing"] += header.missing_bytes > 0


def test_random_bytes_raise_nothing_else() -> None:
    reached.clear()
    read_random_bytes()
    assert reached["refused"] > 300
    assert reached["read"] > 50
    assert reached["missing"] > 5
