"""From files to a Model: every fact the API shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.models import Capability, Format, Model
from hyperllamad.core.names import ModelName
from hyperllamad.store import hf_facts
from hyperllamad.store.inspect import inspect, tensors, verbose_info
from hyperllamad.store.layout import locate
from tests.store.files import CONFIG, TOKENS, Tensor, Typed, gguf_bytes, safetensors_bytes, small_directory, small_gguf

NAME = ModelName.parse("m")
C = Capability


def look(path: Path) -> Model:
    return inspect(NAME, locate(path))


def gguf(tmp_path: Path, **metadata: Any) -> Model:
    path = tmp_path / "model.gguf"
    path.write_bytes(small_gguf(**metadata))
    return look(path)


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


def test_a_directory(tmp_path: Path) -> None:
    path = small_directory(tmp_path / "name@tag", tokenizer={"model": {"type": "BPE"}})
    model = look(path)
    weights = path / "model.safetensors"
    assert (model.format, model.path, model.size) == (Format.SAFETENSORS, str(path), weights.stat().st_size)
    assert (model.architecture, model.family, model.quantization) == ("LlamaForCausalLM", "llama", "BF16")
    assert (model.parameter_count, model.context_length, model.embedding_length) == (24, 512, 4)
    assert model.info == verbose_info(model)
    assert model.info == {
        "general.architecture": "llama",
        "general.basename": "name",
        "general.file_type": 32,
        "general.parameter_count": 24,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": 2,
        "llama.block_count": 2,
        "llama.context_length": 512,
        "llama.embedding_length": 4,
        "tokenizer.ggml.model": "gpt2",
    }
    assert tensors(model) == (("model.embed_tokens.weight", "BF16", (5, 4)), ("model.norm.weight", "F32", (4,)))


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({"head_dim": 128}, {"llama.attention.key_length": 128}),
        ({"vocab_size": 49152}, {"llama.vocab_size": 49152}),
        ({"vocab_size": True}, {"llama.vocab_size": None}),
        ({"num_attention_heads": None, "hidden_size": 4}, {"llama.attention.key_length": None}),
    ],
)
def test_what_engines_ask_of_a_directory(tmp_path: Path, config: dict[str, Any], keys: dict[str, int | None]) -> None:
    info = look(small_directory(tmp_path, CONFIG | config)).info
    assert {key: info.get(key) for key in keys} == keys


@pytest.mark.parametrize(
    ("pooling", "limits", "kind", "context"),
    [
        ({"pooling_mode_mean_tokens": True}, {"max_seq_length": 256}, 1, 256),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"max_seq_length": 9999}, 2, 512),
        ({"pooling_mode_lasttoken": True}, {}, 3, 512),
        ([], [], None, 512),
    ],
)
def test_a_sentence_encoder(tmp_path: Path, pooling: Any, limits: Any, kind: int | None, context: int) -> None:
    path = small_directory(tmp_path, modules=[])
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (path / "sentence_bert_config.json").write_text(json.dumps(limits))
    model = look(path)
    assert (model.info.get("llama.pooling_type"), model.context_length) == (kind, context)
    assert model.info["llama.context_length"] == context
    (path / "sentence_bert_config.json").write_text("{")  # says nothing
    (path / "1_Pooling" / "config.json").write_bytes(b" " * (1 << 17))  # neither does this
    model = look(path)
    assert (model.info.get("llama.pooling_type"), model.context_length) == (None, 512)


def test_a_multimodal_directory(tmp_path: Path) -> None:
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": {"hidden_size": 8, "max_position_embeddings": 99, "num_hidden_layers": 3},
        "vision_config": {"hidden_size": 6, "num_hidden_layers": 2},
    }
    model = look(small_directory(tmp_path, config))
    assert (model.family, model.context_length, model.embedding_length) == ("gemma3", 99, 8)
    assert model.capabilities == {C.COMPLETION, C.VISION}
    assert model.info["gemma3.vision.block_count"] == 2
    assert model.info["gemma3.context_length"] == 99
    assert sum("context_length" in key for key in model.info) == 1  # clients take the first they find


@pytest.mark.parametrize(
    ("config", "files", "wanted"),
    [
        ({}, {}, {C.COMPLETION}),
        (
            {},
            {"tokenizer_config": {"chat_template": "{{ tools }} reasoning_effort"}},
            {C.COMPLETION, C.TOOLS, C.THINKING},
        ),
        ({"architectures": ["BertModel"]}, {}, {C.EMBEDDING}),
        ({}, {"modules": []}, {C.EMBEDDING}),
        (
            {"architectures": ["ChatGLMModel"], "auto_map": {"AutoModelForCausalLM": "modeling.X"}},
            {},
            {C.COMPLETION},
        ),
        (
            {},
            {"tokenizer_config": {"added_tokens_decoder": {"5": {"content": "<|fim_prefix|>"}}}},
            {C.COMPLETION, C.INSERT},
        ),
    ],
)
def test_capabilities_of_a_directory(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], wanted: set[Capability]
) -> None:
    assert look(small_directory(tmp_path, CONFIG | config, **files)).capabilities == wanted


@pytest.mark.parametrize(
    ("quantization", "weights", "wanted", "parameters"),
    [
        (None, {"w": ("F16", (8,), 16)}, "F16", 8),
        (None, {"w": ("F8_E4M3", (8,), 8), "w_scale_inv": ("F32", (1,), 4)}, "FP8", 8),
        ({"quant_method": "fp8"}, {"w": ("F8_E4M3", (8,), 8)}, "FP8", 8),
        (
            {"quant_method": "awq", "bits": 4},
            {
                "l.qweight": ("I32", (4,), 16),
                "l.qzeros": ("I32", (1,), 4),
                "l.scales": ("F16", (1,), 2),
                "e": ("F16", (3,), 6),
            },
            "AWQ",
            35,
        ),
        (
            {"quant_method": "gptq", "bits": 8},
            {"l.qweight": ("I32", (4,), 16), "l.g_idx": ("I32", (4,), 16)},
            "GPTQ",
            16,
        ),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, {"w": ("U8", (4,), 4)}, "BNB-4BIT", 8),
        ({"quant_method": "mxfp4"}, {"w_blocks": ("U8", (4,), 4), "w_scales": ("U8", (1,), 1)}, "MXFP4", 8),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4, "type": "int"}}}},
            {"w.weight_packed": ("I32", (4,), 16), "w.weight_shape": ("I64", (2,), 16)},
            "INT4",
            32,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            {"w": ("F8_E4M3", (4,), 4)},
            "FP8",
            4,
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, {"w": ("U8", (4,), 4)}, "NVFP4", 8),
    ],
)
def test_quantization_of_a_directory(
    tmp_path: Path, quantization: Any, weights: Any, wanted: str, parameters: int
) -> None:
    small_directory(tmp_path, CONFIG | {"quantization_config": quantization})
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(weights))
    model = look(tmp_path)
    assert (model.quantization, model.parameter_count) == (wanted, parameters)


def test_recommended_sampling_becomes_options(tmp_path: Path) -> None:
    stated = {
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "repetition_penalty": 1.1,
        "top_p": None,
        "bos_token_id": 1,
    }
    model = look(small_directory(tmp_path, generation_config=stated))
    assert model.parameters == {"temperature": 0.6, "top_k": 20, "repeat_penalty": 1.1}
    assert hf_facts.parameters({**stated, "do_sample": False}) == {}


@pytest.mark.parametrize("architectures", [None, [], "LlamaForCausalLM", [7]])
def test_a_directory_without_an_architecture(tmp_path: Path, architectures: Any) -> None:
    with pytest.raises(LoadFailedError, match="names no architecture"):
        look(small_directory(tmp_path, {"architectures": architectures}))


def test_the_digest_names_the_weights(tmp_path: Path) -> None:
    model = gguf(tmp_path)
    copy = tmp_path / "elsewhere.gguf"
    copy.write_bytes(small_gguf())
    assert look(copy).digest == model.digest
    changed = bytearray(small_gguf())
    changed[-1] ^= 1
    copy.write_bytes(changed)
    assert look(copy).digest != model.digest
    copy.write_bytes(small_gguf(general__name="Other"))
    assert look(copy).digest != model.digest


def test_the_digest_of_a_directory(tmp_path: Path) -> None:
    first = look(small_directory(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("not part of the model")
    assert look(tmp_path / "b").digest == first.digest
    for directory in ("a", "b"):
        (tmp_path / directory / "tokenizer.json").write_text("x" * 1_000_000)
    with_tokenizer = look(tmp_path / "a").digest
    assert first.digest != with_tokenizer == look(tmp_path / "b").digest
    (tmp_path / "b" / "tokenizer.json").write_text("x" * 345_678 + "y" + "x" * 654_321)
    assert look(tmp_path / "b").digest != with_tokenizer
    for directory in ("a", "b"):
        (tmp_path / directory / "tokenizer.json").unlink()
    for name in ("config.json", "model.safetensors"):
        path = tmp_path / "b" / name
        before = path.read_bytes()
        path.write_bytes(before[:-2] + b" }" if name == "config.json" else before[:-1] + b"\x01")
        assert look(tmp_path / "b").digest != first.digest, name
        path.write_bytes(before)


def test_the_digest_samples_a_large_file_everywhere(tmp_path: Path) -> None:
    content = gguf_bytes({"general.architecture": "llama"}, [Tensor("w", (1 << 20,), 24, bytes(1 << 20))])
    path = tmp_path / "large.gguf"
    path.write_bytes(content)
    digest, seen = look(path).digest, 0
    for eighth in range(8):
        start = len(content) - (1 << 20) + (eighth << 17)
        path.write_bytes(content[:start] + b"\x01" * (1 << 17) + content[start + (1 << 17) :])
        seen += look(path).digest != digest
    assert seen == 8
