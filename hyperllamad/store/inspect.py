"""From files to facts: what a model on disk is, as a core Model, and the longer lists that only `show` asks for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.models import Format, Model
from hyperllamad.core.names import ModelName
from hyperllamad.store import capabilities, digest, disk, gguf, hf, hf_facts
from hyperllamad.store.ggml import FILE_TYPES
from hyperllamad.store.layout import Location, locate

MAX_LICENSE = 256 << 10  # characters
_HIDDEN = frozenset({"general.name", "tokenizer.chat_template"})  # left out of /api/show, as in Ollama
_NO_MODELS = {"adapter": "a LoRA adapter", "mmproj": "a vision projector", "imatrix": "an importance matrix"}


class TensorRow(NamedTuple):
    """One tensor as /api/show lists it."""

    name: str
    type: str
    shape: tuple[int, ...]


def inspect(name: ModelName, location: Location) -> Model:
    """The model at `location` under `name`.  Raises LoadFailedError for files that no engine could load."""
    try:
        if location.format is Format.GGUF:
            return _gguf_model(name, location)
        return _directory_model(name, location)
    except OSError as failure:
        raise disk.unreadable(location.path, failure) from failure


def verbose_info(model: Model) -> dict[str, Any]:
    """`model.info` with its arrays filled in (token lists: 100,000s of entries); reads the file anew, up to 0.5 s."""
    if model.format is Format.GGUF:
        return _gguf_info(_gguf_headers(locate(Path(model.path)), arrays=True))
    return dict(model.info)


def tensors(model: Model) -> tuple[TensorRow, ...]:
    """Every tensor of the model; reads the headers anew.  Raises LoadFailedError."""
    if model.format is Format.GGUF:
        headers = _gguf_headers(locate(Path(model.path)))
        return tuple(TensorRow(t.name, t.type, t.shape) for header in headers for t in header.tensors)
    shards = hf.read(Path(model.path)).shards.values()
    return tuple(TensorRow(t.name, t.dtype, t.shape) for header in shards for t in header.tensors)


# -- GGUF ----------------------------------------------------------------------------------------------------------


def _gguf_headers(location: Location, *, arrays: bool = False) -> list[gguf.Header]:
    """The headers of all parts, each file complete."""
    headers = [gguf.read(path, arrays=arrays) for path in location.files]
    for header in headers:
        if header.missing_bytes:
            raise gguf.truncated(header)
    return headers


def _gguf_model(name: ModelName, location: Location) -> Model:
    headers = _gguf_headers(location)
    first = headers[0]
    architecture, kind = first.text("general.architecture"), first.text("general.type")
    if kind in _NO_MODELS or architecture == "clip":
        sentence = f"{first.path} is {_NO_MODELS.get(kind, 'a vision projector')}, not a model of its own"
        raise LoadFailedError(sentence, hint="name the file with the model's weights")
    if not architecture:
        sentence = f"{first.path} does not say of what architecture it is"
        raise LoadFailedError(sentence, hint="the file is damaged, or was made by an unfinished converter")
    info = _gguf_info(headers)
    return Model(
        name=name,
        path=str(location.path),
        format=Format.GGUF,
        architecture=architecture,
        family=architecture.lower(),
        size=sum(header.file_size for header in headers),
        digest=digest.of_gguf(headers),
        modified_at=_newest(location),
        parameter_count=info["general.parameter_count"],
        quantization=_gguf_quantization(headers),
        context_length=first.integer(f"{architecture}.context_length"),
        embedding_length=first.integer(f"{architecture}.embedding_length"),
        capabilities=capabilities.of_gguf(first.metadata),
        chat_template=first.text("tokenizer.chat_template"),
        info=info,
        license=_license(location) or first.text("general.license"),
    )


def _gguf_info(headers: list[gguf.Header]) -> dict[str, Any]:
    info: dict[str, Any] = {key: value for key, value in headers[0].metadata.items() if key not in _HIDDEN}
    counted = sum(tensor.elements for header in headers for tensor in header.tensors)
    info["general.parameter_count"] = headers[0].integer("general.parameter_count") or counted
    return dict(sorted(info.items()))


def _gguf_quantization(headers: list[gguf.Header]) -> str:
    """What the file says it is, else the type that takes the most bytes."""
    file_type = headers[0].metadata.get("general.file_type")
    if isinstance(file_type, int) and file_type in FILE_TYPES:
        return FILE_TYPES[file_type]
    sizes: Counter[str] = Counter()
    for header in headers:
        for tensor in header.tensors:
            sizes[tensor.type] += tensor.size
    return sizes.most_common(1)[0][0] if sizes else ""


# -- Hugging Face --------------------------------------------------------------------------------------------------


def _directory_model(name: ModelName, location: Location) -> Model:
    directory = hf.read(location.path)
    facts = hf_facts.of(directory)
    return Model(
        name=name,
        path=str(location.path),
        format=Format.SAFETENSORS,
        architecture=facts.architecture,
        family=facts.family,
        size=sum(header.file_size for header in directory.shards.values()),
        digest=digest.of_directory(directory, location.files),
        modified_at=_newest(location),
        parameter_count=facts.parameter_count,
        quantization=facts.quantization,
        context_length=facts.context_length,
        embedding_length=facts.embedding_length,
        capabilities=capabilities.of_directory(
            directory.config, directory.tokenizer, directory.chat_template, pools=directory.pools
        ),
        chat_template=directory.chat_template,
        info=hf_facts.info(directory, facts),
        parameters=hf_facts.parameters(directory.generation),
        license=_license(location),
    )


# -- both ----------------------------------------------------------------------------------------------------------


def _license(location: Location) -> str:
    if location.license is None:
        return ""
    try:
        with location.license.open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_LICENSE)
    except OSError:
        return ""  # a model without a readable licence text is still a model


def _newest(location: Location) -> float:
    return max(path.stat().st_mtime for path in location.files)
