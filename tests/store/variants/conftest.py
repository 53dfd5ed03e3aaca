"""A store with one model, `tiny:q4`, and what changes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperllamad.store.catalog import Catalog
from hyperllamad.store.variants import Variants
from tests.store.variants.stores import catalog_of, gguf


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "models"
    gguf(path / "tiny@q4" / "x.gguf")
    return path


@pytest.fixture
def catalog(tmp_path: Path, store: Path) -> Catalog:
    return catalog_of(tmp_path)


@pytest.fixture
def variants(catalog: Catalog) -> Variants:
    return Variants(catalog)
