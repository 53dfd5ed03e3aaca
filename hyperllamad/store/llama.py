"""Turns the tensors and keys of a llama-family GGUF into those of Hugging Face's LlamaForCausalLM.

Uses numpy and gguf, so it lives in the converter's process and is never imported by the daemon.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gguf as gguf_package
import numpy as np
from numpy.typing import NDArray

from hyperllamad.core.errors import UnsupportedError
from hyperllamad.store.gguf import Header, Tensor
from hyperllamad.store.safetensors_file import Source
from hyperllamad.store.tokenizer import Vocabulary

Floats = NDArray[np.float32]

DTYPES = {"bfloat16": "BF16", "float32": "F32"}  # the names config.json and safetensors have for them
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",  # absent when the embedding is used both ways
}
_BLOCK = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


def check(header: Header) -> None:
    """Raises UnsupportedError for a file that LlamaForCausalLM cannot stand for."""
    architecture = header.text("general.architecture")
    if architecture != "llama":
        raise UnsupportedError(
            f"{header.path} is of the architecture {architecture!r}, and only 'llama' can be converted",
            hint="use it as it is with llama_cpp, or download the model in Hugging Face's format",
        )
    if (scaling := header.text("llama.rope.scaling.type") or "none") != "none":
        raise UnsupportedError(f"{header.path} scales its positions ({scaling!r}), which cannot be converted")
    blocks = header.integer("llama.block_count")
    if not 0 < blocks <= len(header.tensors):
        raise UnsupportedError(f"{header.path} claims {blocks} blocks with {len(header.tensors)} tensors")
    heads, kv_heads = _heads(header)
    if not (heads and kv_heads and heads % kv_heads == 0):
        raise UnsupportedError(f"{header.path} has {heads} attention heads over {kv_heads} key-value heads")
    found, places = {tensor.name for tensor in header.tensors}, set(_places(blocks))
    if strange := sorted(found - places):
        raise UnsupportedError(f"{header.path} holds {strange[0]!r}, which has no place in LlamaForCausalLM")
    if lacking := sorted(places - found - {"output.weight"}):
        raise UnsupportedError(f"{header.path} lacks {lacking[0]!r}, which LlamaForCausalLM needs")


def config(header: Header, vocabulary: Vocabulary, dtype: str) -> dict[str, Any]:
    """The content of config.json; `dtype` a key of DTYPES."""
    heads, kv_heads = _heads(header)
    width = header.integer("llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": header.integer("llama.feed_forward_length"),
        "num_hidden_layers": header.integer("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": header.integer("llama.attention.key_length") or width // heads,
        "max_position_embeddings": header.integer("llama.context_length"),
        "rms_norm_eps": header.metadata.get("llama.attention.layer_norm_rms_epsilon", 1e-5),
        "rope_theta": header.metadata.get("llama.rope.freq_base", 10000.0),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in header.tensors),
        "vocab_size": len(vocabulary.tokens),
        "torch_dtype": dtype,
        **token_ids(vocabulary),
    }


def token_ids(vocabulary: Vocabulary) -> dict[str, Any]:
    """The special tokens as config.json and generation_config.json name them."""
    ends = [number for role in ("eos", "eot") if (number := vocabulary.special(role)) is not None]
    ids = {
        "bos_token_id": vocabulary.special("bos"),
        "eos_token_id": ends[0] if len(set(ends)) == 1 else ends or None,
        "pad_token_id": vocabulary.special("padding"),
    }
    return {key: value for key, value in ids.items() if value is not None}


def sources(header: Header, dtype: str) -> Iterator[Source]:
    """Every tensor under Hugging Face's name, its data computed when asked for.  Call check() first."""
    places = _places(header.integer("llama.block_count"))
    for tensor in header.tensors:
        yield Source(places[tensor.name], DTYPES[dtype], tensor.shape[::-1], _Data(header, tensor, dtype))


class _Data:
    """Reads, dequantises and re-orders one tensor when it is called."""

    def __init__(self, header: Header, tensor: Tensor, dtype: str) -> None:
        self._header, self._tensor, self._dtype = header, tensor, dtype

    def __call__(self) -> bytes:
        values = dequantise(self._header, self._tensor)
        heads, kv_heads = _heads(self._header)
        if self._tensor.name.endswith("attn_q.weight"):
            values = unpermute(values, heads)
        elif self._tensor.name.endswith("attn_k.weight"):
            values = unpermute(values, kv_heads)
        if self._dtype == "bfloat16":
            return gguf_package.quantize(values, gguf_package.GGMLQuantizationType.BF16).tobytes()
        return values.tobytes()


def dequantise(header: Header, tensor: Tensor) -> Floats:
    """The values of one tensor, outermost dimension first.  Raises UnsupportedError for a type gguf cannot unpack."""
    shape = tensor.shape[::-1]
    try:
        kind = gguf_package.GGMLQuantizationType[tensor.type]
        raw = np.fromfile(header.path, dtype=np.uint8, count=tensor.size, offset=tensor.offset)
        values = gguf_package.dequantize(raw.reshape(*shape[:-1], -1), kind)
    except (KeyError, NotImplementedError) as failure:
        raise UnsupportedError(f"{header.path}: {tensor.name} is stored as {tensor.type}, not convertible") from failure
    return np.ascontiguousarray(values.reshape(shape), dtype=np.float32)


def unpermute(values: Floats, heads: int) -> Floats:
    """Undo llama.cpp's order of the rows of q and k.

    For its rotary embedding llama.cpp interleaves the two halves of each head's rows (0, h/2, 1, h/2+1, ...); Hugging
    Face keeps one half after the other (convert_hf_to_gguf.py, LlamaModel.permute, backwards).
    """
    if values.ndim != 2 or values.shape[0] % (2 * heads):
        raise UnsupportedError(f"weights of shape {values.shape} cannot be split over {heads} attention heads")
    rows, columns = values.shape
    halves = values.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _heads(header: Header) -> tuple[int, int]:
    heads = header.integer("llama.attention.head_count")
    return heads, header.integer("llama.attention.head_count_kv") or heads


def _places(blocks: int) -> dict[str, str]:
    """GGUF name -> Hugging Face name, for every tensor the model may have."""
    inner = {
        f"blk.{block}.{ours}": f"model.layers.{block}.{theirs}"
        for block in range(blocks)
        for ours, theirs in _BLOCK.items()
    }
    return _OUTER | inner
