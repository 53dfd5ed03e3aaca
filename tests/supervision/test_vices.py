"""Every vice of an engine in every state of its instance: whatever happens then, it ends, and others are served."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import Counter
from pathlib import Path

import aiohttp
import anyio
import pytest

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Model
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.supervision.upstream import Upstream
from tests.supervision import fake
from tests.supervision.test_health import ask

VICES: tuple[tuple[str, ...], ...] = (
    ("--slow", "0.3"),
    ("--slow", "0.3", "--busy-load"),
    ("--never-ready",),
    ("--exit", "1"),
    ("--exit", "2"),
    ("--port-held",),
    ("--fork-and-die",),
    ("--exit-after-tokens", "3"),
    ("--segv-after-tokens", "3"),
    ("--freeze-after-tokens", "3"),
    ("--stall-after-tokens", "3"),
    ("--spin-after-tokens", "3"),
    ("--garbage",),
    ("--half-sse",),
    ("--error-500",),
    ("--error-500-after", "1"),
    ("--slow-reader", "0.05"),
    ("--leak", "1"),
    ("--token-delay", "0.05"),
    ("--prefill", "0.3", "--pings"),
    ("--attention", "0.3"),
    ("--ignore-term",),
    ("--fork",),
    ("--worker",),
    ("--hang-health",),
    ("--log-flood", "12"),
    ("--lying-metrics",),
    ("--refuse-wake",),
    ("--wrong-weights",),
    ("--sleeps",),
    ("--refuse-sleep",),
)
STATES = {  # how each is called here -> what most of them come to
    "starting": State.STARTING,
    "ready": State.READY,
    "busy": State.READY,
    "draining": State.DRAINING,
    "stopping": State.STOPPING,
    "backoff": State.BACKOFF,
}
AT_ONCE = 8


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


def test_every_vice_is_tried() -> None:
    """Those of the fake engine that are more than a number for another one."""
    text = fake.PROGRAM.read_text(encoding="utf-8")
    known = set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', text)) - {"--socket", "--words", "--wait"}
    assert known == {word for vice in VICES for word in vice if word.startswith("--")}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("state", STATES)
async def test_it_ends_and_others_are_served(runtime: Path, state: str) -> None:
    reached: Counter[State] = Counter()
    budget = 1 if state == "backoff" else 0
    most = {"max_loaded_models": AT_ONCE + 1, "restart_budget": budget, "stop_timeout": "0.3s"}
    async with fake.supervised(runtime, patience=200, **most) as supervisor:
        good = fake.model(runtime, "good")
        kept = await supervisor.lease(good).granted()
        limit = anyio.Semaphore(AT_ONCE)

        async def one(number: int, *vice: str) -> None:
            async with limit:
                await _through(supervisor, fake.model(runtime, f"m{number}", *vice), state, number % 2 > 0, reached)

        async with anyio.create_task_group() as group:
            for number, vice in enumerate(VICES):
                group.start_soon(one, number, *vice)
            assert await ask(kept) == 13
        assert await ask(kept) == 13
        assert [row.name for row in supervisor.rows()] == ["good:latest"]
    assert sum(reached.values()) == len(VICES)
    assert reached[STATES[state]] >= 5, reached


async def _through(supervisor: Supervisor, model: Model, state: str, kill: bool, reached: Counter[State]) -> None:
    """Bring it into that state if it can be brought there, kill it there or not, then send it away."""
    lease = supervisor.lease(model)
    async with anyio.create_task_group() as group:
        never = "--never-ready" in model.engine_args
        with anyio.move_on_after(0.3 if never else None), contextlib.suppress(HyperLlamaError):
            if state == "starting":
                while not pid_of(supervisor, model):
                    await anyio.sleep(0.01)
            else:
                upstream = await lease.granted()
                if state in {"busy", "draining", "stopping"}:
                    group.start_soon(ask_in_vain, upstream)
                    await anyio.sleep(0.05)
                if state in {"draining", "stopping"}:
                    supervisor.unload(model, cut=state == "stopping")
        if kill:
            kill_main(supervisor, model)
        if (
            state == "backoff"
        ):  # on a busy machine the pause may be over before it is seen, or nobody there to be killed
            while state_of(supervisor, model) not in {State.BACKOFF, State.FAILED, None}:
                kill_main(supervisor, model)
                await anyio.sleep(0.01)
        reached[state_of(supervisor, model) or State.GONE] += 1
        lease.release()
        supervisor.unload(model, cut=True)
        while (now := state_of(supervisor, model)) is not None:
            if now is State.FAILED:
                supervisor.unload(model, cut=True)
            await anyio.sleep(0.02)
        group.cancel_scope.cancel()


async def ask_in_vain(upstream: Upstream) -> None:
    """A long answer of a vicious engine, until it breaks off."""
    with contextlib.suppress(aiohttp.ClientError, RuntimeError):
        await ask(upstream, 1000)


def state_of(supervisor: Supervisor, model: Model) -> State | None:
    row = fake.row(supervisor, str(model.name))
    return row.state if row is not None else None


def kill_main(supervisor: Supervisor, model: Model) -> None:
    with contextlib.suppress(ProcessLookupError):
        if pid := pid_of(supervisor, model):
            os.kill(pid, signal.SIGKILL)


def pid_of(supervisor: Supervisor, model: Model) -> int:
    row = fake.row(supervisor, str(model.name))
    return row.pid if row is not None else 0
