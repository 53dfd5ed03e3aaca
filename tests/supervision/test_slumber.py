"""An engine that sleeps and wakes, or does not, or comes back as another: real children, no fleet in between."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.core.errors import EngineDiedError
from hyperllamad.core.instance import Fact, State
from hyperllamad.core.models import Kind
from hyperllamad.supervision import memory
from hyperllamad.supervision.life import Life
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.supervision.upstream import BASE, Upstream
from tests.supervision import fake
from tests.supervision.processes import wait_for


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


class Loaded:
    """A loaded model, the facts its life reports from now on, and what it answers."""

    def __init__(self, life: Life, upstream: Upstream) -> None:
        self.life = life
        self.upstream = upstream
        self.facts: list[Fact] = []
        self.errors: list[str] = []
        passed_on = life._report

        def report(fact: Fact, error: Any) -> None:
            self.facts.append(fact)
            self.errors.append(str(error or ""))
            passed_on(fact, error)

        life._report = report  # type: ignore[method-assign]

    async def ask(self) -> tuple[int, str]:
        async with self.upstream.session.post(
            BASE + Kind.COMPLETION, json={"prompt": "count", "max_tokens": 3}
        ) as reply:
            return reply.status, (await reply.text())


async def load(supervisor: Supervisor, root: Path, *vices: str) -> Loaded:
    lease = supervisor.lease(fake.model(root, "m", *vices))
    upstream = await lease.granted()
    lease.release()
    (life,) = supervisor._crew.lives.values()
    return Loaded(life, upstream)


async def test_it_sleeps_and_answers_as_before_when_it_wakes(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        loaded = await load(supervisor, runtime, "--sleeps")
        before = await loaded.ask()
        assert before[0] == 200
        for _ in range(2):
            loaded.life.sleep(1)
            await wait_for(lambda: loaded.facts)
            assert loaded.facts == [Fact.SLEPT]
            assert (await loaded.ask())[0] == 500
            loaded.life.wake()
            await wait_for(lambda: len(loaded.facts) == 2)
            assert loaded.facts == [Fact.SLEPT, Fact.READY]
            assert await loaded.ask() == before
            loaded.facts.clear()


async def sick(loaded: Loaded, *before: Fact) -> str:
    """Its reason for being sick, once it is."""
    await wait_for(lambda: len(loaded.facts) > len(before))
    assert loaded.facts == [*before, Fact.SICK]
    return loaded.errors[-1]


async def test_one_that_comes_back_with_other_weights_is_started_afresh(
    runtime: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fake.supervised(runtime) as supervisor:
        loaded = await load(supervisor, runtime, "--sleeps", "--wrong-weights")
        loaded.life.sleep(1)
        await wait_for(lambda: loaded.facts)
        loaded.life.wake()
        assert "answers differently than before it slept" in await sick(loaded, Fact.SLEPT)
        await fake.wait_change(supervisor, "m", State.READY)
        lease = supervisor.lease(fake.model(runtime, "m", "--sleeps", "--wrong-weights"))
        upstream = await lease.granted()
        async with upstream.session.post(BASE + Kind.COMPLETION, json={"prompt": "count", "max_tokens": 3}) as reply:
            assert "one two three" in await reply.text()
        lease.release()
    assert "'ten nine eight seven' instead of 'one two three four'" in caplog.text


@pytest.mark.parametrize(
    ("vice", "before", "reason"),
    [
        ("--refuse-sleep", (), "answers /sleep?level=1 with 500: "),
        ("--refuse-wake", (Fact.SLEPT,), "answers /wake_up with 500: "),
    ],
)
async def test_one_that_refuses_is_sick(vice: str, before: tuple[Fact, ...], reason: str, runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        loaded = await load(supervisor, runtime, "--sleeps", vice)
        loaded.life.sleep(1)
        if before:
            await wait_for(lambda: loaded.facts)
            loaded.life.wake()
        assert reason in await sick(loaded, *before)


async def test_one_that_dies_in_its_sleep_cannot_be_woken(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        loaded = await load(supervisor, runtime, "--sleeps")
        slumber = loaded.life._slumber
        assert slumber is not None
        assert supervisor.unload(fake.model(runtime, "m", "--sleeps"))
        await fake.wait_unloaded(supervisor)
        with pytest.raises(EngineDiedError, match="does not answer /wake_up"):
            await slumber.wake()


@pytest.mark.parametrize("level", [1, 2])
async def test_one_that_never_sleeps_is_not_asked_anything(level: int, runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        loaded = await load(supervisor, runtime, "--exit-after-tokens", "0")  # a question would end it
        loaded.life.sleep(level)
        assert f"cannot sleep at level {level}" in await sick(loaded)


async def test_one_that_fails_the_first_question_serves_but_does_not_sleep(
    runtime: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with fake.supervised(runtime) as supervisor:
        loaded = await load(supervisor, runtime, "--sleeps", "--error-500")
        assert "will not be put to sleep: Fake answers /v1/completions with 500" in caplog.text
        loaded.life.sleep(1)
        assert "cannot sleep at level 1" in await sick(loaded)


async def test_with_a_full_budget_who_slept_longest_is_stopped_and_the_next_one_sleeps(runtime: Path) -> None:
    size = 100 << 20
    async with fake.supervised(runtime, max_loaded_models=1, sleep_memory="100MiB") as supervisor:
        for name in "abc":
            lease = supervisor.lease(fake.model(runtime, name, "--sleeps", size=size))
            await lease.granted()
            lease.release()
        states = {row.name.removesuffix(":latest"): row.state for row in supervisor.rows()}
        assert states == {"b": State.ASLEEP, "c": State.READY}
        told = [(event.record.what, event.name[0], event.why) for event in supervisor.events.last(100)]
        assert [(what, name) for what, name, _ in told if what != "placed"] == [
            ("slept", "a"),
            ("waits", "c"),
            ("evicted", "a"),
            ("slept", "b"),
        ]
        assert told[-4:-2] == [
            ("waits", "c", "host memory comes back for b:latest to sleep in"),
            ("evicted", "a", "c:latest needs its host memory"),
        ]
        lease = supervisor.lease(fake.model(runtime, "b", "--sleeps", size=size))
        await lease.granted()
        lease.release()
        assert supervisor.events.last(1)[0].record.what == "woken"


async def test_the_budget_is_of_what_there_was_at_start(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who sleep hold part of the machine's memory: they must not be stopped because there is less of it now."""
    async with fake.supervised(runtime, max_loaded_models=1) as supervisor:
        for name in "ab":
            lease = supervisor.lease(fake.model(runtime, name, "--sleeps", size=100 << 20))
            await lease.granted()
            lease.release()
        monkeypatch.setattr(memory, "read", lambda: (1 << 30, 1 << 20))
        await supervisor.machine_changed()
        assert [row.state for row in supervisor.rows()] == [State.ASLEEP, State.READY]
