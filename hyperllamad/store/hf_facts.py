"""What config.json and the weights' headers say about a model, in the terms of Ollama and of GGUF.

Pure but for a look at tokenizer.json and at what sentence-transformers writes beside config.json.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.store import hf
from hyperllamad.store.safetensors_file import Tensor

# The same number has different names in different families' config.json.
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_KV_HEADS = ("num_key_value_heads", "n_kv_heads", "multi_query_group_num")
_HEAD_WIDTH = ("head_dim", "attention_head_dim", "kv_channels")
_VOCABULARY = ("vocab_size", "padded_vocab_size", "n_vocab")
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")

_SMALL = 1 << 16  # bytes
_FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}  # general.file_type of those that exist in GGUF
_DTYPES = {"F8_E4M3": "FP8", "F8_E5M2": "FP8"}
_POOLING = {"mean_tokens": 1, "cls_token": 2, "lasttoken": 3}  # sentence-transformers' modes -> GGUF's pooling_type
_SAMPLING = {  # generation_config.json -> Ollama option
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
# Tensors beside quantised weights that are no parameters of the model.
_BESIDE = (
    "scales",
    "zeros",
    "g_idx",
    "scale",
    "scale_inv",
    "scale_2",
    "zero_point",
    "weight_shape",
    "absmax",
    "quant_map",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """Sizes as in core Model."""

    architecture: str
    family: str
    parameter_count: int
    quantization: str
    context_length: int
    embedding_length: int


def of(directory: hf.Directory) -> Facts:
    """Raises LoadFailedError when config.json names no architecture: no engine could choose its code."""
    config = directory.config
    architectures, family = config.get("architectures"), config.get("model_type")
    if not (isinstance(architectures, list) and architectures and isinstance(architectures[0], str)):
        raise LoadFailedError(
            f"{directory.path / 'config.json'} names no architecture", hint="download the model again"
        )
    text = _text(config)
    tensors = [tensor for header in directory.shards.values() for tensor in header.tensors]
    return Facts(
        architecture=architectures[0],
        family=family.lower() if isinstance(family, str) else "",
        parameter_count=sum(_parameters(tensor, _bits(config)) for tensor in tensors),
        quantization=_quantization(config, tensors),
        context_length=_context(text, directory.path),
        embedding_length=_number(text, _WIDTH),
    )


def info(directory: hf.Directory, facts: Facts) -> dict[str, Any]:
    """The keys a GGUF of this model would have, as far as clients ask for them (Ollama's CLI, Open WebUI, LiteLLM)."""
    text, family = _text(directory.config), facts.family or facts.architecture.lower()
    heads = _number(text, _HEADS)
    found: dict[str, Any] = {
        "general.architecture": family,
        "general.basename": directory.path.name.partition("@")[0],
        "general.file_type": _FILE_TYPES.get(facts.quantization),
        "general.parameter_count": facts.parameter_count,
        f"{family}.attention.head_count": heads,
        f"{family}.attention.head_count_kv": _number(text, _KV_HEADS) or heads,
        f"{family}.attention.key_length": _head_width(text, heads),
        f"{family}.block_count": _number(text, _LAYERS),
        f"{family}.context_length": facts.context_length,
        f"{family}.embedding_length": facts.embedding_length,
        f"{family}.pooling_type": _pooling(directory.path) if directory.pools else 0,
        f"{family}.vocab_size": _number(text, _VOCABULARY),
        "tokenizer.ggml.model": hf.tokenizer_kind(directory.path),
    }
    vision = directory.config.get("vision_config")
    if isinstance(vision, dict):
        found[f"{family}.vision.block_count"] = _number(vision, (*_LAYERS, "depth"))
        found[f"{family}.vision.embedding_length"] = _number(vision, _WIDTH)
    known_zero = "general.file_type"  # 0 means F32 there; elsewhere it means that the files do not say
    return {key: value for key, value in sorted(found.items()) if value or (key == known_zero and value == 0)}


def parameters(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling its makers recommend (generation_config.json), as Ollama options."""
    if generation.get("do_sample") is False:
        return {}
    found = {option: generation.get(key) for key, option in _SAMPLING.items()}
    return {key: value for key, value in found.items() if type(value) in {int, float}}


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json about the language model: multimodal ones keep it one level down."""
    for key in _TEXT_PARTS:
        if isinstance(part := config.get(key), dict):
            return {**config, **_text(part)}
    return config


def _context(text: Mapping[str, Any], path: Path) -> int:
    """What the positions reach; a sentence encoder may have been trained for less, and vLLM holds it to that."""
    reach = _number(text, _CONTEXT)
    trained = _number(_beside(path / "sentence_bert_config.json"), ("max_seq_length",))
    return min(reach, trained) if reach and trained else reach or trained


def _head_width(text: Mapping[str, Any], heads: int) -> int:
    """Values of one key of one head; where nobody states it the heads share the model's width."""
    return _number(text, _HEAD_WIDTH) or (_number(text, _WIDTH) // heads if heads else 0)


def _pooling(path: Path) -> int:
    """How a text's vectors become one, in GGUF's numbers; 0 when the files do not say."""
    stated = _beside(path / "1_Pooling" / "config.json")
    return next((number for mode, number in _POOLING.items() if stated.get(f"pooling_mode_{mode}") is True), 0)


def _beside(path: Path) -> Mapping[str, Any]:
    """The object in a small JSON file that may be missing; one that cannot be read says nothing."""
    try:
        tree = json.loads(path.read_bytes()) if path.is_file() and path.stat().st_size <= _SMALL else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _number(tree: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    """The first whole number above 0 under one of the keys; 0 when there is none."""
    return next((value for key in keys if type(value := tree.get(key)) is int and value > 0), 0)


def _quantization(config: Mapping[str, Any], tensors: list[Tensor]) -> str:
    """The method config.json states, else the type that takes the most bytes."""
    stated = _quantization_config(config)
    method = str(stated.get("quant_method", "")).lower()
    if algorithm := stated.get("quant_algo"):  # modelopt: FP8, NVFP4
        return str(algorithm).upper()
    if method == "compressed-tensors":
        weights = _compressed_weights(stated)
        return f"{'FP' if weights.get('type') == 'float' else 'INT'}{weights.get('num_bits', '')}"
    if method == "bitsandbytes":
        return "BNB-4BIT" if stated.get("load_in_4bit") else "BNB-8BIT"
    if method:
        return method.upper()
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.size
    largest = sizes.most_common(1)[0][0] if sizes else ""
    return _DTYPES.get(largest, largest)


def _quantization_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    stated = config.get("quantization_config") or _text(config).get("quantization_config")
    return stated if isinstance(stated, dict) else {}


def _compressed_weights(stated: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first group's `weights` of a compressed-tensors configuration."""
    groups = stated.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        if isinstance(group, dict) and isinstance(weights := group.get("weights"), dict):
            return weights
    return {}


def _bits(config: Mapping[str, Any]) -> int:
    """Bits per weight where several share an integer: 4 unless stated."""
    stated = _quantization_config(config)
    bits = stated.get("bits") or stated.get("w_bit") or _compressed_weights(stated).get("num_bits")
    return bits if type(bits) is int and bits in {2, 3, 4, 8} else 4


def _parameters(tensor: Tensor, bits: int) -> int:
    """How many parameters of the model a tensor holds: whole-number types hold several in each number."""
    if tensor.name.endswith(_BESIDE):
        return 0
    if tensor.dtype in {"I32", "U8"}:
        return tensor.elements * (32 if tensor.dtype == "I32" else 8) // bits
    return tensor.elements
