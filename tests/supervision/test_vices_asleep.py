"""Every vice of an engine in every state of its sleep: whatever happens then, it ends, and others are served."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from pathlib import Path

import anyio
import anyio.abc
import pytest

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Model
from hyperllamad.supervision import slumber
from hyperllamad.supervision.lease import Lease
from hyperllamad.supervision.supervisor import Supervisor
from tests.supervision import fake
from tests.supervision.test_health import ask
from tests.supervision.test_vices import AT_ONCE, VICES, ask_in_vain, pid_of, state_of

STATES = (State.SETTLING, State.SLEEPING, State.ASLEEP, State.WAKING)
OVER = {State.FAILED, State.STOPPING, State.BACKOFF, None}  # it will not come to any of them any more


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)
    monkeypatch.setattr(slumber, "ANSWER_WITHIN", 3.0)  # healthy ones keep within it on a busy machine, too
    monkeypatch.setattr(slumber, "SWITCH_WITHIN", 3.0)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("state", STATES)
async def test_it_ends_and_others_are_served(runtime: Path, state: State) -> None:
    reached: Counter[State] = Counter()
    limit = anyio.Semaphore(AT_ONCE)

    async def one(number: int, *vice: str) -> None:
        root = runtime / str(number)
        root.mkdir()
        async with limit:
            reached[await _through(root, vice, state, kill=number % 2 > 0)] += 1

    async with anyio.create_task_group() as group:
        for number, vice in enumerate(VICES):
            group.start_soon(one, number, *vice)
    assert reached.total() == len(VICES)
    assert reached[state] >= len(VICES) // 2, reached


async def _through(root: Path, vice: tuple[str, ...], state: State, *, kill: bool) -> State:
    """Bring a model into that state, if it can be brought there, by asking for another; which state it came to."""
    only_one = {"max_loaded_models": 1, "restart_budget": 0, "stop_timeout": "0.3s"}
    async with fake.supervised(root, patience=200, **only_one) as supervisor:
        model, other = fake.model(root, "m", "--sleeps", *vice), fake.model(root, "other")
        async with anyio.create_task_group() as group:
            lease, wish = await _bring(supervisor, model, other, state, group)
            reached = state_of(supervisor, model)
            if kill and (pid := pid_of(supervisor, model)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            group.cancel_scope.cancel()  # whoever still asks the model has gone
        lease.release()
        assert await ask(await wish.granted()) == 13
        wish.release()
        while (now := state_of(supervisor, model)) is not None:
            if now not in {State.STOPPING, State.DRAINING}:
                supervisor.unload(model, cut=True)
            await anyio.sleep(0.01)
        assert [row.name for row in supervisor.rows()] == ["other:latest"]
        return reached or State.GONE


async def _bring(
    supervisor: Supervisor, model: Model, other: Model, state: State, group: anyio.abc.TaskGroup
) -> tuple[Lease, Lease]:
    """Into that state, as far as it goes; its lease, and one of the other model, which there is room for one day."""
    lease = supervisor.lease(model)
    never = "--never-ready" in model.engine_args
    with anyio.move_on_after(0.3 if never else None), contextlib.suppress(HyperLlamaError):
        upstream = await lease.granted()
        if state is State.SETTLING:
            group.start_soon(ask_in_vain, upstream)
            await anyio.sleep(0.02)
    if state is not State.SETTLING:
        lease.release()
    if never:  # who still arrives does not make room for anybody
        supervisor.unload(model, cut=True)
    wish = supervisor.lease(other)
    if state in {State.ASLEEP, State.WAKING}:
        await _until(supervisor, model, State.ASLEEP)
    if state is not State.WAKING:
        return lease, wish
    with contextlib.suppress(HyperLlamaError):
        await wish.granted()
    wish.release()
    group.start_soon(_want, supervisor, model)
    await _until(supervisor, model, State.WAKING, State.READY)
    return lease, supervisor.lease(other)


async def _want(supervisor: Supervisor, model: Model) -> None:
    """A request that waits for the model until it is cancelled, or served."""
    lease = supervisor.lease(model)
    try:
        with contextlib.suppress(HyperLlamaError):
            await lease.granted()
    finally:
        lease.release()


async def _until(supervisor: Supervisor, model: Model, *states: State) -> None:
    """One of the states, or one from which none of them is reached: looked at often, for some are short."""
    while state_of(supervisor, model) not in {*states, *OVER}:
        await anyio.sleep(0.001)
