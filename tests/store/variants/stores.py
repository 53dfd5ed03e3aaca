"""Stores on a disk, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import ModelsTable, ModelTable
from hyperllamad.store.catalog import Catalog
from tests.store.files import small_gguf


def catalog_of(root: Path, *entries: ModelTable, **models: Any) -> Catalog:
    paths = Paths(config=root, state=root / "state", cache=root, runtime=root)
    return Catalog(paths, ModelsTable(**models), entries)


def gguf(path: Path, **metadata: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_gguf(**metadata))
    return path


def names(catalog: Catalog) -> list[str]:
    return sorted(model.name.short for model in catalog.list())
