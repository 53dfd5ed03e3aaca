"""From a GGUF file to a Model: every fact the API shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.models import Capability, Format
from hyperllamad.store.inspect import tensors, verbose_info
from tests.store.files import TOKENS, Tensor, Typed, gguf_bytes, small_directory, small_gguf
from tests.store.looks import gguf, look

C = Capability


def test_a_gguf(tmp_path: Path) -> None:
    model = gguf(tmp_path)
    path = tmp_path / "model.gguf"
    assert (model.format, model.path) == (Format.GGUF, str(path))
    assert (model.architecture, model.family, model.quantization) == ("llama", "llama", "F32")
    assert (model.parameter_count, model.parameter_size) == (24, "24")
    assert (model.context_length, model.embedding_length) == (512, 4)
    assert (model.size, model.modified_at) == (path.stat().st_size, path.stat().st_mtime)
    assert model.chat_template.startswith("{% for m")
    assert model.license == "mit"
    assert len(model.digest) == 64


def test_what_show_gets_of_a_gguf(tmp_path: Path) -> None:
    model = gguf(tmp_path)
    short = {
        "general.architecture": "llama",
        "general.file_type": 0,
        "general.license": "mit",
        "general.parameter_count": 24,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.context_length": 512,
        "llama.embedding_length": 4,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.scores": None,
        "tokenizer.ggml.tokens": None,
    }
    assert list(model.info.items()) == list(short.items())
    assert verbose_info(model) == {**short, "tokenizer.ggml.scores": [0.0, 1.5], "tokenizer.ggml.tokens": TOKENS}
    assert tensors(model) == (("token_embd.weight", "F32", (4, 5)), ("output_norm.weight", "F32", (4,)))


@pytest.mark.parametrize(
    ("number", "wanted"),
    [(0, "F32"), (1, "F16"), (3, "Q4_1"), (15, "Q4_K_M"), (32, "BF16"), (999, "F32"), (None, "F32")],
)
def test_quantization_of_a_gguf(tmp_path: Path, number: int | None, wanted: str) -> None:
    assert gguf(tmp_path, general__file_type=number).quantization == wanted


@pytest.mark.parametrize(
    ("metadata", "wanted"),
    [
        ({}, {C.COMPLETION}),
        ({"tokenizer__chat_template": None}, {C.COMPLETION}),
        ({"tokenizer__chat_template": "{% if tools %}"}, {C.COMPLETION, C.TOOLS}),
        ({"tokenizer__chat_template": "{% if enable_thinking %}"}, {C.COMPLETION, C.THINKING}),
        ({"tokenizer__chat_template": "tools <think>"}, {C.COMPLETION, C.TOOLS, C.THINKING}),
        ({"llama__pooling_type": 1}, {C.EMBEDDING}),
        ({"llama__vision__block_count": 2}, {C.COMPLETION, C.VISION}),
        ({"tokenizer__ggml__fim_pre_token_id": 3}, {C.COMPLETION, C.INSERT}),
    ],
)
def test_capabilities_of_a_gguf(tmp_path: Path, metadata: dict[str, Any], wanted: set[Capability]) -> None:
    assert gguf(tmp_path, **metadata).capabilities == wanted


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"general__architecture": None}, "does not say of what architecture"),
        ({"general__type": "adapter"}, "is a LoRA adapter"),
        ({"general__architecture": "clip"}, "is a vision projector"),
        ({"general__type": "mmproj"}, "is a vision projector"),
    ],
)
def test_ggufs_that_are_no_models(tmp_path: Path, metadata: dict[str, Any], says: str) -> None:
    with pytest.raises(LoadFailedError, match=says):
        gguf(tmp_path, **metadata)


def test_a_truncated_gguf(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(small_gguf()[:-1])
    with pytest.raises(LoadFailedError, match="is truncated"):
        look(path)


def test_a_split_gguf_is_one_model(tmp_path: Path) -> None:
    first = small_gguf(split__count=Typed(2, 2))
    second = gguf_bytes({"split.no": Typed(2, 1)}, [Tensor("output.weight", (32,), 2, bytes(18))])
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(first)
    with pytest.raises(LoadFailedError, match=r"m-00002-of-00002.gguf is missing: the model comes in 2 parts"):
        look(tmp_path / "m-00001-of-00002.gguf")
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(second)
    for path in (tmp_path, tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"):
        model = look(path)
        assert model.path == str(tmp_path / "m-00001-of-00002.gguf")
        assert model.size == len(first) + len(second)
        assert model.parameter_count == 56
        assert [row.name for row in tensors(model)] == ["token_embd.weight", "output_norm.weight", "output.weight"]


def test_a_licence_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(small_gguf())
    (tmp_path / "LICENSE.txt").write_text("Do as you like.")
    assert look(tmp_path).license == "Do as you like."
    assert look(tmp_path / "m.gguf").license == "mit"  # the directory may be anybody's
    assert look(small_directory(tmp_path / "hf")).license == ""
