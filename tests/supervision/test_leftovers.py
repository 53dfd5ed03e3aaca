"""What an engine's life leaves in the daemon's memory is freed soon after its end, not when Python happens to look."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from hyperllamad.__main__ import SWITCH
from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.models import Model
from hyperllamad.supervision import crew, leftovers, procfs
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
    gc.freeze()  # as the daemon does: the tests' own objects are not among those that are looked at
    yield begun
    gc.unfreeze()
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


class Looks:
    """How often somebody has looked; each look takes as long as `each` says, in seconds."""

    def __init__(self) -> None:
        self.count, self.each, self.now = 0, 0.0, 1.0

    def look(self) -> None:
        self.count += 1
        self.now += self.each


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    monkeypatch.setattr(leftovers, "PAUSE", 0.0)
    made = Looks()
    monkeypatch.setattr(gc, "collect", made.look)
    monkeypatch.setattr(time, "thread_time", lambda: made.now)
    return made


async def test_nobody_looks_while_nothing_has_ended(looks: Looks) -> None:
    found = leftovers.Leftovers()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(found.run)
        await anyio.wait_all_tasks_blocked()
        assert looks.count == 0
        for ended in (1, 2):
            found.more()
            await wait_for(lambda: looks.count)
            await anyio.wait_all_tasks_blocked()
            assert looks.count == ended
        tasks.cancel_scope.cancel()


async def test_after_a_long_look_more_must_end_first(looks: Looks) -> None:
    """A crowd of connections is a long pause for all of their streams."""
    found, seen = leftovers.Leftovers(), []
    looks.each = 2.5 * leftovers.WORTH
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(found.run)
        for _ in range(8):
            found.more()
            await anyio.sleep(0)
            await anyio.wait_all_tasks_blocked()
            seen.append(looks.count)
        tasks.cancel_scope.cancel()
    assert seen == [1, 1, 1, 2, 2, 2, 3, 3]


@pytest.fixture
def crowded() -> Iterator[list[int]]:
    """What was imported is frozen and threads take turns, as in the daemon; and there is something to look at.

    Yields one number for each look at all of it.
    """
    looks: list[int] = []

    def looked(phase: str, about: dict[str, int]) -> None:
        if phase == "stop" and about["generation"] == 2:
            looks.append(len(looks))

    interval = sys.getswitchinterval()
    gc.freeze()
    sys.setswitchinterval(SWITCH)
    crowd = [[] for _ in range(100_000)]
    gc.callbacks.append(looked)
    yield looks
    gc.callbacks.remove(looked)
    assert len(crowd) == 100_000
    sys.setswitchinterval(interval)
    gc.unfreeze()


async def test_a_look_disturbs_no_other_thread(crowded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A tuple that is being made is held by its maker alone, or it cannot be finished: SystemError in the maker."""
    monkeypatch.setattr(leftovers, "PAUSE", 0.0)
    failed: list[SystemError] = []
    done = threading.Event()

    def make() -> None:
        while not done.is_set() and not failed:
            try:
                tuple(map(os.stat, (__file__,) * 3))
            except SystemError as error:
                failed.append(error)

    found = leftovers.Leftovers()
    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(found.run)
        while len(crowded) < 100 and not failed:
            found.more()
            await anyio.sleep(0)
        tasks.cancel_scope.cancel()
    done.set()
    maker.join()
    assert failed == []


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has no malloc_trim")
async def test_pages_that_the_c_library_keeps_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freed blocks between blocks that stay: no end of a heap falls back by itself."""
    monkeypatch.setattr(leftovers, "PAUSE", 0.0)
    blocks = [bytes(1000) for _ in range(40_000)]  # too large for Python's own allocator
    stay = blocks[::100]
    del blocks
    before = procfs.unreclaimable([os.getpid()])
    found = leftovers.Leftovers()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(found.run)
        found.more()
        await wait_for(lambda: before - procfs.unreclaimable([os.getpid()]) > 20 << 20)
        tasks.cancel_scope.cancel()
    assert len(stay) == 400
