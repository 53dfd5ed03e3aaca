"""Hugging Face directories: what is read, and how what is wrong with them is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.store import hf
from tests.store.files import WEIGHTS, safetensors_bytes, sharded_directory, small_directory

RAG, DEFAULT = '{"name": "rag", "template": "r"}', '{"name": "default", "template": "d"}'


def failure(path: Path) -> str:
    with pytest.raises(LoadFailedError) as caught:
        hf.read(path)
    return caught.value.message


def test_a_whole_directory(tmp_path: Path) -> None:
    path = small_directory(tmp_path, tokenizer_config={"chat_template": "T"}, generation_config={"top_k": 5})
    found = hf.read(path)
    assert found.config["model_type"] == "llama"
    assert found.chat_template == "T"
    assert found.generation == {"top_k": 5}
    assert [shard.name for shard in found.shards] == ["model.safetensors"]
    assert not found.pools


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, ""),
        ({"chat_template.jinja": "file"}, "file"),
        ({"chat_template.jinja": "file", "tokenizer_config.json": '{"chat_template": "config"}'}, "file"),
        ({"chat_template.json": '{"chat_template": "json"}'}, "json"),
        ({"tokenizer_config.json": '{"chat_template": "config"}'}, "config"),
        ({"tokenizer_config.json": f'{{"chat_template": [{RAG}, {DEFAULT}]}}'}, "d"),
        ({"tokenizer_config.json": f'{{"chat_template": [{RAG}]}}'}, "r"),
        ({"tokenizer_config.json": '{"chat_template": 7}'}, ""),
    ],
)
def test_the_chat_template(tmp_path: Path, files: dict[str, str], wanted: str) -> None:
    small_directory(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert hf.read(tmp_path).chat_template == wanted


def test_a_sharded_directory(tmp_path: Path) -> None:
    found = hf.read(sharded_directory(tmp_path))
    assert [shard.name for shard in found.shards] == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]


@pytest.mark.parametrize("index", [True, False])
def test_missing_shards_are_named(tmp_path: Path, index: bool) -> None:
    sharded_directory(tmp_path)
    if not index:
        (tmp_path / "model.safetensors.index.json").unlink()
    for number in (1, 3):
        (tmp_path / f"model-0000{number}-of-00003.safetensors").unlink()
    sentence = failure(tmp_path)
    assert "lacks 2 of 3 weight files" in sentence
    assert "model-00001-of-00003.safetensors, model-00003-of-00003.safetensors" in sentence


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    sharded_directory(tmp_path)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-3])
    size = shard.stat().st_size
    assert failure(tmp_path) == f"{shard} is truncated: {size} of {size + 3} bytes are there"


def test_an_index_cannot_lead_out_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "secret.safetensors").write_bytes(safetensors_bytes(WEIGHTS))
    path = sharded_directory(tmp_path / "model")
    index = {"weight_map": {"w": "../secret.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks 1 of 1 weight files" in failure(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 6000 + b"}"]
)
def test_garbled_json_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    small_directory(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert failure(tmp_path).startswith(f"{tmp_path / name} ")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = small_directory(tmp_path)
    (path / "model.safetensors").unlink()
    assert failure(path) == f"{path} holds no .safetensors files"
    (path / "config.json").unlink()
    assert failure(path) == f"{path / 'config.json'} is missing"


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    path = small_directory(tmp_path)
    os.mkfifo(path / "tokenizer_config.json")
    assert "is no file" in failure(path)
    (path / "tokenizer_config.json").unlink()
    os.truncate(path / "config.json", hf.MAX_JSON + 1)
    assert "is no file of at most 16 MiB" in failure(path)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, ""),
        ({"tokenizer.json": {"model": {"type": "BPE", "byte_fallback": False}}}, "gpt2"),
        (
            {"tokenizer.json": {"added_tokens": [{"content": "x"}], "model": {"type": "BPE", "byte_fallback": True}}},
            "llama",
        ),
        ({"tokenizer.json": {"model": {"type": "WordPiece"}}}, "bert"),
        ({"tokenizer.json": {"model": {"type": "Unigram"}}}, "t5"),
        ({"tokenizer.json": {"model": {}}}, ""),
        ({"tokenizer.json": {}, "tokenizer.model": {}}, "llama"),
    ],
)
def test_the_kind_of_tokenizer(tmp_path: Path, files: dict[str, Any], wanted: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content, indent=1))
    assert hf.tokenizer_kind(tmp_path) == wanted
