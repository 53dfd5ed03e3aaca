"""The commands load, warm and unload: every step told, and what a hang-up takes back."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import anyio
import pytest

from hyperllamactl.protocol.base import Done, Failed
from hyperllamactl.protocol.instances import Load, Unload, Warm
from hyperllamad.control import reporting
from hyperllamad.core.errors import ClosingError, LoadFailedError
from hyperllamad.core.instance import State
from tests.control.conftest import QWEN, SMOL, Door
from tests.control.later import Later

NAME = "smollm2:135m"


async def test_load_tells_every_step_then_the_row(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "HEARTBEAT", math.inf)
    show = partial(door.supervisor.show, SMOL)
    async with door.stream(Load(model=NAME, keep_alive="10m")) as next_line:
        first = await next_line()
        assert (first.phase, first.detail) == ("waiting", "for another model to make room")
        for phase in ("starting", "weights", "warming"):
            show(State.STARTING, phase=phase)
            assert (await next_line()).phase == phase
        show(State.BACKOFF, cause="it crashed")
        crashed = await next_line()
        assert (crashed.phase, crashed.detail) == ("backoff", "it crashed")
        assert crashed.elapsed > 0
        show(State.READY)
        assert (await next_line()).phase == "ready"
        lease = door.supervisor.leases[0]
        assert not lease.released.is_set()
        lease.answer()
        last = await next_line()
    assert [(row.name, row.state) for row in last.instances] == [(NAME, "ready")]
    assert lease.keep_alive == 600
    assert lease.released.is_set()
    assert door.supervisor.retried == [NAME]


async def test_warm_loads_once_and_keeps_nothing(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "HEARTBEAT", math.inf)
    async with door.stream(Warm(model=NAME)) as next_line:
        assert (await next_line()).phase == "waiting"
        door.supervisor.show(SMOL, State.READY, phases={"starting": 5.5, "compiling": 21.04})
        assert (await next_line()).phase == "ready"
        (lease,) = door.supervisor.leases
        lease.answer()
        last = await next_line()
    assert last.message == f"{NAME} is warm: starting 5.5 s, compiling 21.0 s"
    assert (lease.keep_alive, lease.released.is_set()) == (0, True)


@pytest.mark.parametrize("state", [State.READY, State.ASLEEP, State.DRAINING])
async def test_what_is_loaded_is_warm(state: State, door: Door) -> None:
    door.supervisor.show(SMOL, state)
    answer = await door.call(Warm(model=NAME))
    assert answer.last.message == f"{NAME} is loaded, so its caches are warm"
    assert door.supervisor.leases == []


async def test_load_shows_life_while_nothing_moves(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "HEARTBEAT", 0.001)
    door.supervisor.show(SMOL, State.STARTING, phase="weights")
    async with door.stream(Load(model=NAME)) as next_line:
        beats = [await next_line() for _ in range(3)]
    assert [beat.phase for beat in beats] == ["weights"] * 3
    assert beats[0].elapsed < beats[1].elapsed < beats[2].elapsed


async def test_load_of_what_is_ready_is_the_row_alone_or_after_a_step(door: Door) -> None:
    door.supervisor.show(SMOL, State.READY)
    async with anyio.create_task_group() as tasks:
        later = Later(door, Load(model=NAME), tasks)
        await door.supervisor.leased.wait()
        door.supervisor.leases[0].answer()
        answer = await later.wait()
    assert answer.last.instances[0].state == "ready"


async def test_load_of_a_model_that_is_not_to_stay_still_shows_it(door: Door) -> None:
    door.supervisor.show(SMOL, State.READY)
    async with anyio.create_task_group() as tasks:
        later = Later(door, Load(model=NAME, keep_alive=0), tasks)
        await door.supervisor.leased.wait()
        lease = door.supervisor.leases[0]
        lease.release = lambda: door.supervisor.show(SMOL, State.GONE)  # type: ignore[method-assign]
        lease.answer()
        answer = await later.wait()
    assert answer.last.instances[0].state == "ready"
    assert lease.keep_alive == 0


@pytest.mark.parametrize("error", [LoadFailedError("no memory", hint="buy some"), ClosingError()])
async def test_a_load_that_fails_says_why_and_gives_back(error: Any, door: Door) -> None:
    async with anyio.create_task_group() as tasks:
        later = Later(door, Load(model=NAME), tasks)
        await door.supervisor.leased.wait()
        door.supervisor.leases[0].answer(error)
        answer = await later.wait()
    assert answer.last == Failed(code=error.code, message=error.message, hint=error.hint)
    assert door.supervisor.leases[0].released.is_set()


async def test_who_hangs_up_takes_back_the_wish_to_load(door: Door) -> None:
    async with door.stream(Load(model=NAME)) as next_line:
        await next_line()
        assert not door.supervisor.leases[0].released.is_set()
    with anyio.fail_after(5):
        await door.supervisor.leases[0].released.wait()


@pytest.mark.parametrize("cut", [False, True])
async def test_unload_waits_until_it_is_gone(cut: bool, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "HEARTBEAT", math.inf)
    show = partial(door.supervisor.show, SMOL)
    show(State.READY, running=2)
    async with door.stream(Unload(model=NAME, now=cut)) as next_line:
        first = await next_line()
        assert (first.phase, first.detail) == ("ready", "2 requests to finish")
        assert door.supervisor.unloaded == [(NAME, cut)]
        show(State.DRAINING, running=1)
        assert (await next_line()).detail == "1 request to finish"
        door.supervisor.show(QWEN, State.GONE)  # somebody else
        await next_line()
        show(State.STOPPING)
        assert (await next_line()).phase == "stopping"
        show(State.GONE)
        assert await next_line() == Done(message="smollm2:135m is unloaded")


async def test_unload_means_the_instance_that_was_there_not_the_next_one(door: Door) -> None:
    door.supervisor.show(SMOL, State.DRAINING)
    async with anyio.create_task_group() as tasks:
        later = Later(door, Unload(model=NAME), tasks)
        await door.supervisor.unloading.wait()
        door.supervisor.show(SMOL, State.GONE)
        door.supervisor.show(SMOL, State.WAITING)  # a request that waited
        assert (await later.wait()).last == Done(message="smollm2:135m is unloaded")


async def test_unload_at_the_end_of_the_daemon_ends(door: Door) -> None:
    door.supervisor.show(SMOL, State.READY)
    async with anyio.create_task_group() as tasks:
        later = Later(door, Unload(model=NAME), tasks)
        await door.supervisor.unloading.wait()
        door.supervisor.close()
        assert (await later.wait()).last.code == "closing"
