"""A hub of our own, and a library over it that is not patient."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from hyperllamad.config.tables import ModelTable
from hyperllamad.store import pull, shortnames
from hyperllamad.store.fetch_wire import Request
from hyperllamad.store.library import Library
from tests.store import hub as hub_module
from tests.store.hub import Hub
from tests.store.pulling import ROOT, Open, Store, config_of, environ_of


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_module.serve() as hub:
        yield hub


@pytest.fixture
def opened(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    patient = pull.Request

    def hasty(**fields: Any) -> Request:
        return patient(**{**fields, "attempts": 2, "pause": 0.01, "reserve": 0})

    monkeypatch.setattr("hyperllamad.store.library.Request", hasty)

    @asynccontextmanager
    async def opened(*models: ModelTable, **environ: str) -> AsyncIterator[Store]:
        config = config_of(tmp_path, *models)
        names = shortnames.read(ROOT / "etc" / "hyperllama" / "catalog.toml")
        library = Library(config, names, environ=environ_of(hub, tmp_path, **environ))
        async with anyio.create_task_group() as tasks:
            await tasks.start(library.run)
            yield Store(library, config)
            tasks.cancel_scope.cancel()

    return opened
