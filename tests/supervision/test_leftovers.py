"""What an engine's life leaves in the daemon's memory is freed soon after its end, not when Python happens to look."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.models import Model
from hyperllamad.supervision import crew, leftovers
from hyperllamad.supervision.life import Life
from hyperllamad.supervision.supervisor import Supervisor
from tests.supervision import fake
from tests.supervision.asking import chat
from tests.supervision.processes import wait_for


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Life]]]:
    """Every life that is begun; Python's collector does nothing by itself meanwhile."""
    begun: list[weakref.ref[Life]] = []

    class Seen(Life):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            begun.append(weakref.ref(self))

    fake.install(monkeypatch)
    monkeypatch.setattr(crew, "Life", Seen)
    monkeypatch.setattr(leftovers, "PAUSE", 0.02)
    gc.disable()
    yield begun
    gc.enable()


async def _use(supervisor: Supervisor, model: Model) -> None:
    """One request, and the model is sent away."""
    lease = supervisor.lease(model, keep_alive=0)
    with contextlib.suppress(HyperLlamaError, aiohttp.ClientError):
        await chat(await lease.granted(), max_tokens=10)
    lease.release()
    supervisor.unload(model, cut=True)
    await fake.wait_unloaded(supervisor)


async def test_lives_that_are_over_are_forgotten(runtime: Path, lives: list[weakref.ref[Life]]) -> None:
    async with fake.supervised(runtime, restart_budget=1) as supervisor:
        for vice in ([], ["--exit", "2"], ["--exit-after-tokens", "3"]):
            await _use(supervisor, fake.model(runtime, "m", *vice))
        assert len(lives) >= 3
        await wait_for(lambda: not any(life() for life in lives))


async def test_nobody_looks_while_nothing_has_ended(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[None] = []
    fake.install(monkeypatch)
    monkeypatch.setattr(leftovers, "PAUSE", 0.0)
    monkeypatch.setattr(gc, "collect", lambda: looked.append(None))
    async with fake.supervised(runtime) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m"), keep_alive=0)
        await lease.granted()
        assert not looked
        lease.release()
        await wait_for(lambda: looked)
        assert len(looked) == 1
