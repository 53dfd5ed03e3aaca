"""Reads a Hugging Face directory: its JSON files and the headers of its weights, never the weights.

Everything is checked against the sizes of the files, so that a download that broke off is named before an engine spends
half a minute on it.  Knows the files, not what a model is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.store import disk, safetensors_file
from hyperllamad.store.safetensors_file import Header

MAX_JSON = 16 << 20  # bytes; the index of a model with 60,000 tensors takes 5 MB
_INDEX = "model.safetensors.index.json"
_HINT = "the directory was not downloaded completely: fetch it again"
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.safetensors")
_TOKENIZER_HEAD = 4 << 20  # bytes of tokenizer.json in which its kind is looked for


@dataclass(frozen=True, slots=True)
class Directory:
    """What the files say."""

    path: Path
    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]  # tokenizer_config.json; empty when there is none
    generation: Mapping[str, Any]  # generation_config.json; empty when there is none
    chat_template: str
    shards: Mapping[Path, Header]
    pools: bool  # a sentence-transformers directory: one vector per text


def read(path: Path) -> Directory:
    """Raises LoadFailedError: a file that is missing, garbled or truncated, each named."""
    try:
        return _directory(path)
    except OSError as failure:
        raise disk.unreadable(path, failure) from failure


def _directory(path: Path) -> Directory:
    config = _read_json(path / "config.json")
    tokenizer = _read_json(path / "tokenizer_config.json", optional=True)
    return Directory(
        path=path,
        config=config,
        tokenizer=tokenizer,
        generation=_read_json(path / "generation_config.json", optional=True),
        chat_template=_chat_template(path, tokenizer),
        shards={shard: safetensors_file.read(shard) for shard in _shards(path)},
        pools=(path / "modules.json").exists() or (path / "1_Pooling").exists(),
    )


def _read_json(path: Path, *, optional: bool = False) -> Mapping[str, Any]:
    """The object in a JSON file; an empty one when the file may be missing and is."""
    raw = _read(path, optional=optional)
    if raw is None:
        return {}
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError) as failure:
        raise LoadFailedError(f"{path} is not valid JSON: {failure}", hint=_HINT) from failure
    if not isinstance(tree, dict):
        raise LoadFailedError(f"{path} does not hold a JSON object", hint=_HINT)
    return tree


def _read(path: Path, *, optional: bool) -> bytes | None:
    if not path.exists():
        if optional:
            return None
        raise LoadFailedError(f"{path} is missing", hint=_HINT)
    # Asked before opening: opening a named pipe would wait for a writer.
    if not path.is_file() or path.stat().st_size > MAX_JSON:
        raise LoadFailedError(f"{path} is no file of at most {MAX_JSON >> 20} MiB")
    return path.read_bytes()


def _chat_template(path: Path, tokenizer: Mapping[str, Any]) -> str:
    """From chat_template.jinja, chat_template.json or tokenizer_config.json: the order in which transformers looks."""
    if text := _read(path / "chat_template.jinja", optional=True):
        return text.decode(errors="replace")
    stated = _read_json(path / "chat_template.json", optional=True).get("chat_template")
    template = stated or tokenizer.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default") or next(iter(named.values()), "")
    return template if isinstance(template, str) else ""


def _shards(path: Path) -> list[Path]:
    """The weight files, every one of which is there."""
    index = _read_json(path / _INDEX, optional=True)
    weights = index.get("weight_map")
    if isinstance(weights, dict) and weights:
        names = sorted({str(name) for name in weights.values()})
    elif (path / "model.safetensors").exists():
        names = ["model.safetensors"]
    else:
        names = _numbered(sorted(entry.name for entry in path.glob("*.safetensors")))
    if not names:
        hint = "weights in other formats (.bin, .pt) are not read: look for a safetensors version of the model"
        raise LoadFailedError(f"{path} holds no .safetensors files", hint=hint)
    missing = [name for name in names if "/" in name or not (path / name).exists()]
    if missing:
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise LoadFailedError(f"{path} lacks {len(missing)} of {len(names)} weight files: {listed}", hint=_HINT)
    return [path / name for name in names]


def _numbered(names: list[str]) -> list[str]:
    """The names with those added that a numbering like 00001-of-00003 promises."""
    whole = set(names)
    for name in names:
        if found := _NUMBERED.fullmatch(name):
            count = int(found["count"])
            whole |= {f"{found['stem']}-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)}
    return sorted(whole)


def tokenizer_kind(path: Path) -> str:
    """In GGUF's words (tokenizer.ggml.model): "gpt2", "llama", "bert"; "" when the files do not say.

    Only the beginning of tokenizer.json is searched: whole ones take up to 30 MB.
    """
    if (path / "tokenizer.model").exists():
        return "llama"
    tokenizer = path / "tokenizer.json"
    if not tokenizer.is_file():
        return ""
    with tokenizer.open("rb") as file:
        head = file.read(_TOKENIZER_HEAD)
    found = re.search(rb'"model"\s*:\s*\{\s*"type"\s*:\s*"(\w+)"', head)
    kind = found[1].decode() if found else ""
    if kind == "BPE" and re.search(rb'"byte_fallback"\s*:\s*true', head):
        return "llama"
    return {"BPE": "gpt2", "Unigram": "t5", "WordPiece": "bert"}.get(kind, "")
