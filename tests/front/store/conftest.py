"""The front over a real store on a disk, and a hub on a loopback port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from hyperllamad.config.load import load_config
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.library import Library
from hyperllamad.store.shortnames import ShortNames
from tests.front.conftest import House, OpenHouse, Store
from tests.front.store.asks import NOTHING
from tests.store import hub as hub_module
from tests.store.files import small_gguf
from tests.store.hub import Hub
from tests.store.pulling import environ_of


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_module.serve() as hub:
        yield hub


@pytest.fixture
def store(tmp_path: Path, hub: Hub) -> Store:
    """The model `m`, and a library that pulls from our own hub."""
    config = load_config(tmp_path, environ={"HOME": str(tmp_path)})
    (config.paths.models / "m@latest").mkdir(parents=True)
    (config.paths.models / "m@latest" / "m.gguf").write_bytes(small_gguf())
    library = Library(config, ShortNames(()), environ=environ_of(hub, tmp_path))
    return Store(Catalog(config.paths, config.models, config.model), library)


@pytest.fixture
def open_house(house: OpenHouse, store: Store) -> AbstractAsyncContextManager[House]:
    return house(NOTHING, store=store)


Opened = AbstractAsyncContextManager[House]
