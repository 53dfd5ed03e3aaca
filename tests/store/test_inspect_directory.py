"""From a Hugging Face directory to a Model: every fact the API shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.models import Capability, Format
from hyperllamad.store import hf_facts
from hyperllamad.store.inspect import tensors, verbose_info
from tests.store.files import CONFIG, safetensors_bytes, small_directory
from tests.store.looks import look

C = Capability


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
