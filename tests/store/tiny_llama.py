"""A random llama of 60,000 parameters as a GGUF, with the values it should have once it is a Hugging Face directory."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.store.files import Tensor, gguf_bytes

Floats = NDArray[np.float32]
Kind = gguf.GGMLQuantizationType

WIDTH, HEADS, KV_HEADS, INNER, BLOCKS = 64, 4, 2, 96, 2
HEAD = WIDTH // HEADS

# The 256 printable stand-ins for bytes that byte-level BPE uses, and a few words made of them.
_PLAIN = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
ALPHABET = [chr(c) for c in _PLAIN] + [chr(256 + n) for n in range(256 - len(_PLAIN))]
MERGES = ["Ġ t", "h e", "Ġt he", "i n", "1 2"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = [*SPECIAL, "<tool>", *ALPHABET, *(merge.replace(" ", "") for merge in MERGES)]
TYPES = [3] * len(SPECIAL) + [4] + [1] * (len(ALPHABET) + len(MERGES))
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def permuted(weights: Floats, heads: int) -> Floats:
    """Rows in llama.cpp's order, row by row: of each head first 0 and h/2, then 1 and h/2 + 1, and so on."""
    size = len(weights) // heads
    order = [
        head * size + half * size // 2 + row for head in range(heads) for row in range(size // 2) for half in (0, 1)
    ]
    return weights[order]


def metadata(**changes: Any) -> dict[str, Any]:
    """The keys; changes name them with two bars for each dot, None leaves a key out."""
    keys: dict[str, Any] = {
        "general.architecture": "llama",
        "general.file_type": 3,
        "llama.block_count": BLOCKS,
        "llama.context_length": 128,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 100000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    }
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in keys.items() if value is not None}


class TinyLlama:
    """The tensors as a file has them, and `wanted`: what they are in Hugging Face's names and order of rows."""

    def __init__(self, *, tied: bool = True) -> None:
        self._random = np.random.default_rng(1)
        self.tensors: list[Tensor] = []
        self.wanted: dict[str, Floats] = {}
        self._add("token_embd.weight", "model.embed_tokens.weight", Kind.Q8_0, len(TOKENS), WIDTH)
        self._add("output_norm.weight", "model.norm.weight", Kind.F32, WIDTH)
        if not tied:
            self._add("output.weight", "lm_head.weight", Kind.F16, len(TOKENS), WIDTH)
        for block in range(BLOCKS):
            ours, theirs = f"blk.{block}.", f"model.layers.{block}."
            self._add(ours + "attn_norm.weight", theirs + "input_layernorm.weight", Kind.F32, WIDTH)
            self._add(ours + "attn_q.weight", theirs + "self_attn.q_proj.weight", Kind.Q4_1, WIDTH, WIDTH, heads=HEADS)
            self._add(
                ours + "attn_k.weight",
                theirs + "self_attn.k_proj.weight",
                Kind.Q4_0,
                HEAD * KV_HEADS,
                WIDTH,
                heads=KV_HEADS,
            )
            self._add(ours + "attn_v.weight", theirs + "self_attn.v_proj.weight", Kind.BF16, HEAD * KV_HEADS, WIDTH)
            self._add(ours + "attn_output.weight", theirs + "self_attn.o_proj.weight", Kind.Q4_1, WIDTH, WIDTH)
            self._add(ours + "ffn_norm.weight", theirs + "post_attention_layernorm.weight", Kind.F32, WIDTH)
            self._add(ours + "ffn_gate.weight", theirs + "mlp.gate_proj.weight", Kind.Q5_0, INNER, WIDTH)
            self._add(ours + "ffn_up.weight", theirs + "mlp.up_proj.weight", Kind.Q4_1, INNER, WIDTH)
            self._add(ours + "ffn_down.weight", theirs + "mlp.down_proj.weight", Kind.Q4_1, WIDTH, INNER)

    def _add(self, ours: str, theirs: str, kind: Kind, *shape: int, heads: int = 0) -> None:
        """Make up weights, keep what remains of them after quantisation, and store them as llama.cpp would."""
        raw = gguf.quantize(self._random.standard_normal(shape, dtype=np.float32), kind)
        self.wanted[theirs] = gguf.dequantize(raw, kind).astype(np.float32).reshape(shape)
        # Quantised row by row, so rows may change places afterwards.
        stored = permuted(raw, heads) if heads else raw
        self.tensors.append(Tensor(ours, shape[::-1], kind.value, stored.tobytes()))

    def gguf(self, **changes: Any) -> bytes:
        return gguf_bytes(metadata(**changes), self.tensors)
