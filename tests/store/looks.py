"""A look at files as the catalogue takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyperllamad.core.models import Model
from hyperllamad.core.names import ModelName
from hyperllamad.store.inspect import inspect
from hyperllamad.store.layout import locate
from tests.store.files import small_gguf

NAME = ModelName.parse("m")


def look(path: Path) -> Model:
    return inspect(NAME, locate(path))


def gguf(tmp_path: Path, **metadata: Any) -> Model:
    path = tmp_path / "model.gguf"
    path.write_bytes(small_gguf(**metadata))
    return look(path)
