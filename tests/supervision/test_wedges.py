"""Patterns in which other model servers have stood still for hours, played against ours over real children.

Each test names the report it is taken from.  What is common to them: a model is on its way out, or several are on
their way in, and something happens that the scheduler did not expect just then.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from hyperllamad.core.instance import State
from hyperllamad.core.models import Model
from hyperllamad.supervision.supervisor import Supervisor
from tests.supervision import fake
from tests.supervision.asking import chat
from tests.supervision.processes import wait_for

PATIENCE = 20.0  # seconds within which everything here must be over


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


async def ask(supervisor: Supervisor, model: Model, served: list[str], **body: object) -> None:
    """One request from beginning to end."""
    lease = supervisor.lease(model)
    try:
        upstream = await lease.granted()
        await chat(upstream, **body)
        served.append(model.name.key)
    finally:
        lease.release()


def short(served: list[str]) -> list[str]:
    return [name.rpartition("/")[2].partition(":")[0] for name in served]


async def test_the_evicted_model_is_used_again_while_it_leaves(runtime: Path) -> None:
    """A load waits for the end of a model that new requests keep alive: https://github.com/ollama/ollama/issues/17408"""
    async with fake.supervised(runtime, max_loaded_models=1) as supervisor:
        hot = fake.model(runtime, "hot", "--token-delay", "0.02")
        other = fake.model(runtime, "other")
        served: list[str] = []
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as clients:
                clients.start_soon(ask, supervisor, hot, served)
                await wait_for(lambda: any(row.state is State.READY and row.running for row in supervisor.rows()))
                clients.start_soon(ask, supervisor, other, served)
                await wait_for(lambda: any(row.state is State.DRAINING for row in supervisor.rows()))
                for _ in range(10):  # they come while it drains, and go on coming
                    clients.start_soon(ask, supervisor, hot, served)
                    await anyio.lowlevel.checkpoint()
        assert short(served)[:2] == ["hot", "other"], "the newcomer was not put off for those who came after it"
        assert sorted(short(served)) == ["hot"] * 11 + ["other"]


async def test_a_loaded_model_serves_while_another_one_waits_for_an_eviction(runtime: Path) -> None:
    """Requests for loaded models queue behind one whose room is not free: https://github.com/ollama/ollama/issues/14578"""
    async with fake.supervised(runtime, max_loaded_models=2) as supervisor:
        busy, hot = fake.model(runtime, "busy"), fake.model(runtime, "hot")
        holding, using = supervisor.lease(busy), supervisor.lease(hot)
        with anyio.fail_after(PATIENCE):
            await holding.granted()
            await using.granted()
            waiting = supervisor.lease(fake.model(runtime, "new"))
            await wait_for(lambda: any(row.state is State.DRAINING for row in supervisor.rows()))
            leaving = next(row.name for row in supervisor.rows() if row.state is State.DRAINING)
            served: list[str] = []
            stays = hot if leaving == str(busy.name) else busy
            for _ in range(20):
                await ask(supervisor, stays, served, max_tokens=1)
            assert len(served) == 20
            assert any(row.state is State.DRAINING for row in supervisor.rows()), "the eviction was still under way"
            holding.release()
            using.release()
            await waiting.granted()


async def test_two_loads_at_once_into_one_place(runtime: Path) -> None:
    """One of two concurrent loads stays queued for ever: https://github.com/ggml-org/llama.cpp/issues/28443"""
    async with fake.supervised(runtime, max_loaded_models=1) as supervisor:
        served: list[str] = []
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as clients:
                for name in "abab":
                    clients.start_soon(ask, supervisor, fake.model(runtime, name, "--slow", "0.1"), served)
        assert sorted(short(served)) == ["a", "a", "b", "b"]


@pytest.mark.parametrize("moment", ["generating", "loading"])
async def test_nobody_is_evicted_in_the_middle(runtime: Path, moment: str) -> None:
    """A model is evicted that generates or loads: https://github.com/ggml-org/llama.cpp/issues/21678"""
    async with fake.supervised(runtime, max_loaded_models=1) as supervisor:
        vice = ("--token-delay", "0.03") if moment == "generating" else ("--slow", "0.5")
        first, second = fake.model(runtime, "first", *vice), fake.model(runtime, "second")
        state = State.READY if moment == "generating" else State.STARTING
        served: list[str] = []
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as clients:
                clients.start_soon(ask, supervisor, first, served)
                await wait_for(lambda: any(row.state is state for row in supervisor.rows()))
                clients.start_soon(ask, supervisor, second, served)
        assert short(served) == ["first", "second"], "the first one's whole answer came before the second one's"


async def test_a_request_in_the_moment_in_which_a_model_stops_for_its_keep_alive(runtime: Path) -> None:
    """It waits for ever on a process that stops: https://github.com/mostlygeek/llama-swap/issues/946"""
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", "--ignore-term")  # so that stopping takes its time
        served: list[str] = []
        with anyio.fail_after(PATIENCE):
            await ask(supervisor, model, served)
            supervisor.keep(model, 0)
            await wait_for(lambda: any(row.state is State.STOPPING for row in supervisor.rows()))
            async with anyio.create_task_group() as clients:
                for _ in range(5):
                    clients.start_soon(ask, supervisor, model, served)
        assert len(served) == 6
