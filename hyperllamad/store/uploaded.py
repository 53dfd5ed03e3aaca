"""Models made of uploaded files: names for blobs, in a directory that appears when it is a whole model.

Nothing is copied: a file of the model is a second name for a blob's bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from hyperllamad.core.errors import BadRequestError, InUseError, LoadFailedError
from hyperllamad.core.models import Model
from hyperllamad.core.names import ModelName
from hyperllamad.store import disk, gguf, layout, staging
from hyperllamad.store.blobs import Blobs, parse_digest
from hyperllamad.store.inspect import inspect
from hyperllamad.store.steps import OnStep, Step

_MAGIC = b"GGUF"


def build(
    name: ModelName,
    target: Path,
    files: Mapping[str, str],
    blobs: Blobs,
    on_step: OnStep,
    *,
    accept: Callable[[Model], None] = lambda _: None,
) -> None:
    """Make `target` of `files` (relative path -> digest), in place of what may be there.

    `accept` may refuse the model by raising.
    Raises BadRequestError in Ollama's words where it has them, InUseError while another process builds the same,
    StoreError.
    """
    sources = _sources(files, blobs)
    linked = _placed(sources)
    try:
        with disk.explained(f"the model {name.short}"), staging.stage(target, replace=True) as work:
            for path, source in linked.items():
                (work / path).parent.mkdir(parents=True, exist_ok=True)
                disk.link(source, work / path)
                on_step(Step(f"using existing layer {source.name.replace('-', ':')}"))
            _check(name, work, accept)
    except LoadFailedError as failure:  # from staging: a disk that refuses, or another process
        if isinstance(failure.__cause__, OSError):
            raise disk.refusal(f"the model {name.short}", failure.__cause__) from failure
        raise InUseError(failure.message, hint=failure.hint) from failure


def _sources(files: Mapping[str, str], blobs: Blobs) -> dict[PurePosixPath, Path]:
    """The blob of each path, all of them there."""
    found = {}
    for text, digest in files.items():
        path = PurePosixPath(text)
        if not path.name or path.is_absolute() or ".." in path.parts:
            raise BadRequestError("file path must be relative")
        if any(part.startswith(".") for part in path.parts):  # among them is what says where pulled files come from
            raise BadRequestError(f"the file {text} has a name that the store keeps for itself", hint="leave it out")
        source = blobs.path(digest)
        if not source.is_file():
            hint = f"upload it first with POST /api/blobs/sha256:{parse_digest(digest)}"
            raise BadRequestError(f"the file {text} (sha256:{parse_digest(digest)}) is not here", hint=hint)
        found[path] = source
    return found


def _placed(sources: Mapping[PurePosixPath, Path]) -> dict[str, Path]:
    """Which name each blob gets in the model's directory: a GGUF is known by its first bytes, whatever its name."""
    if any(path.suffix == ".safetensors" for path in sources):
        return {str(path): source for path, source in sources.items()}
    placed = {}
    for path, source in sources.items():
        with source.open("rb") as file:
            magic = file.read(4)
        if magic != _MAGIC:
            raise BadRequestError("supplied file was not in GGUF format" if path.suffix == ".gguf" else "unknown type")
        placed[_gguf_name(path, source)] = source
    if len(placed) != len(sources):
        raise BadRequestError("two of the files have the same name", hint="give each another one")
    return placed


def _gguf_name(path: PurePosixPath, source: Path) -> str:
    name = path.name if path.suffix == ".gguf" else f"{path.name}.gguf"
    try:
        header = gguf.read(source)
    except LoadFailedError as failure:
        raise BadRequestError(f"{path} is not a usable GGUF file: {_without(failure, source)}") from failure
    projector = header.text("general.type") == "mmproj" or header.text("general.architecture") == "clip"
    return f"mmproj-{name}" if projector and not name.startswith("mmproj") else name.lstrip(".")


def _check(name: ModelName, work: Path, accept: Callable[[Model], None]) -> None:
    """What cannot be loaded does not become a model."""
    try:
        location = layout.locate(work)
        accept(inspect(name, location))
    except LoadFailedError as failure:
        raise BadRequestError(f"the files make no model: {_without(failure, work)}") from failure
    # Blobs may be old; the model is new.
    os.utime(location.files[0])


def _without(failure: LoadFailedError, path: Path) -> str:
    """The sentence without a place that the client knows nothing of."""
    return failure.message.replace(f"{path}/", "").replace(str(path), "the upload")
