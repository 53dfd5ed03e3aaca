"""Made-up model files: a tiny GGUF writer, a tiny safetensors writer, and whole models of a few kilobytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Python type -> GGUF value type for the values tests write; others are given as Typed.
U32, F32, BOOL, STRING, ARRAY, U64 = 4, 6, 7, 8, 9, 10
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}


class Typed(NamedTuple):
    """A value of a stated GGUF type; for arrays `kind` is that of the elements."""

    kind: int
    value: Any


class Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]  # fastest-moving first, as in the file
    kind: int
    data: bytes


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(item: Any) -> bytes:
    """The type and the bytes of one metadata value."""
    kind, item = (item.kind, item.value) if isinstance(item, Typed) else (None, item)
    if isinstance(item, (list, tuple)):
        if kind is None:
            kind = STRING if item and isinstance(item[0], str) else F32 if item and isinstance(item[0], float) else 5
        body = b"".join(string(x) if kind == STRING else struct.pack("<" + _CODES[kind], x) for x in item)
        return struct.pack("<IIQ", ARRAY, kind, len(item)) + body
    if isinstance(item, str):
        return struct.pack("<I", STRING) + string(item)
    if kind is None:
        kind = BOOL if isinstance(item, bool) else F32 if isinstance(item, float) else U32
    return struct.pack("<I", kind) + struct.pack("<" + _CODES[kind], item)


def gguf_bytes(
    metadata: Mapping[str, Any],
    tensors: Sequence[Tensor] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file; `counts` lies about the number of tensors and keys."""
    tensor_count, key_count = counts or (len(tensors), len(metadata))
    header = magic + struct.pack("<IQQ", version, tensor_count, key_count)
    header += b"".join(string(key) + value(item) for key, item in metadata.items())
    data = b""
    for tensor in tensors:
        data += bytes(-len(data) % alignment)
        header += string(tensor.name) + struct.pack("<I", len(tensor.shape))
        header += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape) + struct.pack("<IQ", tensor.kind, len(data))
        data += tensor.data
    return header + (bytes(-len(header) % alignment) + data if tensors else b"")


def f32(name: str, *shape: int, start: float = 0.0) -> Tensor:
    """A tensor of 32-bit floats that count up from `start`."""
    count = 1
    for size in shape:
        count *= size
    return Tensor(name, shape, 0, struct.pack(f"<{count}f", *(start + n for n in range(count))))


TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "ab", "Ġ", "Ġa"]


def small_gguf(**metadata: Any) -> bytes:
    """A model of 24 parameters: enough to be listed, not to be run.  Keys are added or replaced, dots as two bars."""
    keys: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "general.file_type": 0,
        "general.license": "mit",
        "llama.context_length": 512,
        "llama.embedding_length": 4,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.scores": [0.0, 1.5],
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    keys |= {key.replace("__", "."): item for key, item in metadata.items()}
    tensors = [f32("token_embd.weight", 4, 5), f32("output_norm.weight", 4)]
    return gguf_bytes({key: item for key, item in keys.items() if item is not None}, tensors)


def safetensors_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...], int]], **metadata: str) -> bytes:
    """A file of zeros: name -> (dtype, shape, bytes)."""
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, (dtype, shape, size) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end := end + size]}
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + bytes(end)


CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}
WEIGHTS = {"model.embed_tokens.weight": ("BF16", (5, 4), 40), "model.norm.weight": ("F32", (4,), 16)}


def small_directory(path: Path, config: Mapping[str, Any] = CONFIG, **files: Any) -> Path:
    """A Hugging Face directory of 24 parameters; `tokenizer_config={...}` adds tokenizer_config.json."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(safetensors_bytes(WEIGHTS, format="pt"))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def sharded_directory(path: Path, shards: int = 3) -> Path:
    """A Hugging Face directory in numbered parts, with an index."""
    small_directory(path)
    (path / "model.safetensors").unlink()
    names = [f"model-{number:05d}-of-{shards:05d}.safetensors" for number in range(1, shards + 1)]
    for number, name in enumerate(names):
        (path / name).write_bytes(safetensors_bytes({f"w{number}": ("F16", (8,), 16)}))
    index = {"metadata": {"total_size": 16 * shards}, "weight_map": {f"w{n}": name for n, name in enumerate(names)}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path
