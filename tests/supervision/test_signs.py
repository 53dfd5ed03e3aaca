"""A worker that is lost alone is news; one that goes with its engine, or with the guard, is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperllamad.core.models import key_of
from hyperllamad.supervision import signs, vital
from hyperllamad.supervision.endings import MemoryKills
from hyperllamad.supervision.plan import Plan, resolve
from hyperllamad.supervision.probe import Pace
from tests.supervision import fake


@pytest.fixture
def ended() -> Iterator[int]:
    """A process that has ended and was not waited for."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid


@pytest.mark.parametrize("whose", ["nobody", "guard", "engine"])
async def test_whose_end_it_is(runtime: Path, ended: int, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(_guard: int, _vital: str) -> int:
        return 1234

    monkeypatch.setattr(vital, "wait_lost", lost)
    told: list[str] = []
    model = fake.model(runtime, "m")
    settings = resolve(model, fake.configuration(runtime), fake.HOME)
    plan = Plan(key_of(model, settings), model, settings, fake.HOME, fake.ENGINE)
    watch = signs.Signs(
        plan, Pace(), MemoryKills(), capture=None, asked=lambda: False, sick=lambda line, _: told.append(line)
    )
    alive = os.getpid()
    await watch._watch_vital(ended if whose == "guard" else alive, ended if whose == "engine" else alive)
    assert told == (["has lost its worker process 1234"] if whose == "nobody" else [])
