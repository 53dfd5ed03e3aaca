"""Turns a Hugging Face directory of a BERT sentence encoder into a GGUF, so that llama.cpp can be asked the same texts
as the engines that read the directory.  Tensors become float32; key names are those of the `gguf` package."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

NUMPY = {"F32": np.float32, "F16": np.float16}
_ROLES = {"cls": "cls_token", "sep": "sep_token", "pad": "pad_token", "unk": "unk_token", "mask": "mask_token"}


def write(directory: Path, path: Path, *, judge: NDArray[Any] | None = None) -> None:
    """`directory` has config.json, vocab.txt, tokenizer_config.json, 1_Pooling and one model.safetensors.

    `judge` makes a cross-encoder of it: the weights from the pooled vector to the one number it gives a pair.
    """
    config: dict[str, Any] = json.loads((directory / "config.json").read_bytes())
    writer = gguf.GGUFWriter(path, "bert")
    _sizes(writer, config, None if judge is not None else directory / "1_Pooling" / "config.json")
    _vocabulary(writer, directory)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, values in tensors(directory / "model.safetensors"):
        if name.startswith("pooler."):
            if judge is not None and name.startswith("pooler.dense."):
                writer.add_tensor(name.replace("pooler.dense.", "cls."), np.ascontiguousarray(values, dtype=np.float32))
            continue  # not part of a sentence's vector
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert new is not None, name
        writer.add_tensor(new, np.ascontiguousarray(values, dtype=np.float32))
    if judge is not None:
        writer.add_tensor("cls.output.weight", np.ascontiguousarray(judge[None, :], dtype=np.float32))
        writer.add_tensor("cls.output.bias", np.zeros(1, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _sizes(writer: gguf.GGUFWriter, config: dict[str, Any], pooling: Path | None) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if pooling is None:
        writer.add_pooling_type(gguf.PoolingType.RANK)
    else:
        mean = json.loads(pooling.read_bytes())["pooling_mode_mean_tokens"]
        writer.add_pooling_type(gguf.PoolingType.MEAN if mean else gguf.PoolingType.CLS)


def _vocabulary(writer: gguf.GGUFWriter, directory: Path) -> None:
    """WordPiece as llama.cpp keeps it: a bar before what begins a word, nothing before what goes on with one."""
    words = (directory / "vocab.txt").read_text().splitlines()
    special: dict[str, Any] = json.loads((directory / "tokenizer_config.json").read_bytes())
    kept = {special[role] for role in _ROLES.values()}
    writer.add_tokenizer_model("bert")
    writer.add_token_list([word if word in kept else word[2:] if word[:2] == "##" else f"▁{word}" for word in words])
    writer.add_token_types([gguf.TokenType.CONTROL if word in kept else gguf.TokenType.NORMAL for word in words])
    writer.add_token_type_count(2)
    ids = {role: words.index(special[name]) for role, name in _ROLES.items()}
    writer.add_bos_token_id(ids["cls"])
    writer.add_sep_token_id(ids["sep"])
    writer.add_pad_token_id(ids["pad"])
    writer.add_unk_token_id(ids["unk"])
    writer.add_mask_token_id(ids["mask"])


def tensors(path: Path) -> list[tuple[str, NDArray[Any]]]:
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    found = []
    for name, entry in header.items():
        if name.endswith("position_ids"):
            continue  # no weights: the numbers from 0 on
        first, last = entry["data_offsets"]
        values = np.frombuffer(raw[8 + length + first : 8 + length + last], NUMPY[entry["dtype"]])
        found.append((name, values.reshape(entry["shape"])))
    return found
