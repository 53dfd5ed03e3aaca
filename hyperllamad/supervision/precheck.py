"""What is cheaper to find out than by starting an engine: is the model there, readable and whole?

An engine takes 20 to 100 seconds to say so, and not in plain words (or dies of a segmentation fault).  Reads headers
only, never weights; blocks, so call it in a thread.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.models import Format, Model
from hyperllamad.store import disk, gguf, safetensors_file
from hyperllamad.store.survey import Stamp, stamp

_INCOMPLETE = "the model was not downloaded completely: fetch it again"


def check(model: Model) -> None:
    """Raises LoadFailedError: the sentence says which file, and what is wrong with it."""
    path = Path(model.path)
    try:
        _check(model, path)
    except OSError as failure:  # a directory above it that we may not look into, a name in its index that is none
        raise disk.unreadable(path, failure) from failure


def _check(model: Model, path: Path) -> None:
    if not path.exists():
        hint = "it was moved or deleted; `hyperllamactl list` shows the models that are here"
        raise LoadFailedError(f"{path} does not exist", hint=hint)
    if not os.access(path, os.R_OK):
        raise LoadFailedError(f"{path} may not be read by the daemon", hint="check its owner and mode")
    if model.format is Format.GGUF:
        _check_file(path, stamp((path,)))
    else:
        _check_directory(path)


@functools.lru_cache(maxsize=64)
def _check_file(path: Path, _: Stamp) -> None:
    """Once for each file as it is: a large vocabulary takes a tenth of a second, and every load asks."""
    header = gguf.read(path)
    if header.missing_bytes:
        raise gguf.truncated(header)


def _check_directory(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise LoadFailedError(f"{path} has no config.json", hint="a Hugging Face model directory has one")
    shards = _shards(path)
    if not shards:
        raise LoadFailedError(f"{path} has no weights (*.safetensors)", hint=_INCOMPLETE)
    for shard in shards:
        if not shard.exists():
            raise LoadFailedError(f"{shard} does not exist, but the model's index names it", hint=_INCOMPLETE)
        safetensors_file.read(shard)


def _shards(path: Path) -> list[Path]:
    """The weight files the model consists of: those of its index, else all there are."""
    index = path / "model.safetensors.index.json"
    if not index.exists():
        return sorted(path.glob("*.safetensors"))
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        return sorted(path / name for name in names)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as failure:
        raise LoadFailedError(f"{index} cannot be understood: {failure}", hint=_INCOMPLETE) from failure
