"""Stuck engines are found and replaced, slow ones are left alone: real children, by switch."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp
import anyio
import pytest

from hyperllamad.core.instance import State
from hyperllamad.core.models import Kind
from hyperllamad.core.names import ModelName
from hyperllamad.core.suspension import Rest
from hyperllamad.supervision import procfs
from hyperllamad.supervision.activity import Meter
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.supervision.upstream import BASE, Upstream, Work
from tests.supervision import fake
from tests.supervision.deaths import guard_of, kill_main
from tests.supervision.processes import alive, wait_for


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


async def ask(upstream: Upstream, words: int = 10, *, prompt: str = "", slow: float = 0.0) -> int:
    """The pieces of an answer, with the books kept as the front keeps them; `slow` seconds between two reads."""
    work: Work = upstream.begin(len(prompt))
    work.waiting = True
    body = {"stream": True, "words": words, "messages": [prompt]}
    try:
        async with upstream.session.post(BASE + Kind.CHAT, json=body) as reply:
            async for line in reply.content:
                work.waiting = False
                work.pieces += line.startswith(b"data: {")
                await anyio.sleep(slow)
                work.waiting = True
    finally:
        work.end()
    return work.pieces


def stop_main(supervisor: Supervisor) -> None:
    os.kill(supervisor.rows()[0].pid, signal.SIGSTOP)


def state_of(supervisor: Supervisor) -> State | None:
    """Of the model m."""
    row = fake.row(supervisor, "m")
    return None if row is None else row.state


def stop_worker(supervisor: Supervisor) -> None:
    main = supervisor.rows()[0].pid
    os.kill(procfs.descendants(main, procfs.processes())[0], signal.SIGSTOP)


@pytest.mark.parametrize(
    ("vices", "act", "cause"),
    [
        (("--stall-after-tokens", "5"), None, "none of its processes does anything"),
        (("--stall-after-tokens", "5", "--pings"), None, "none of its processes does anything"),
        (("--stall-after-tokens", "5", "--lying-metrics"), None, "none of its processes does anything"),
        (("--spin-after-tokens", "5"), None, "longer than it has ever needed"),
        (("--spin-after-tokens", "5", "--pings"), None, "longer than it has ever needed"),
        (("--token-delay", "0.02"), stop_main, "one of its processes is stopped"),
        # The fake one goes on without its worker, so it has to stall to look like a real one.
        (("--stall-after-tokens", "5", "--worker"), stop_worker, "one of its processes is stopped"),
    ],
)
async def test_one_that_is_stuck_in_mid_stream_is_replaced(
    runtime: Path, vices: tuple[str, ...], act: Callable[[Supervisor], None] | None, cause: str
) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", *vices)
        upstream = await supervisor.lease(model).granted()
        everybody = procfs.descendants(guard_of(supervisor), procfs.processes())

        async def read() -> None:
            with pytest.raises(aiohttp.ClientError):
                await ask(upstream, 10**6)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await wait_for(lambda: upstream.pieces > 3)
            if act is not None:
                act(supervisor)
        assert cause in upstream.explain()
        assert "it was killed" in upstream.explain()
        await upstream.died.wait()
        assert everybody
        assert not any(alive(pid) for pid in everybody)
        fresh = await supervisor.lease(model).granted()
        assert await ask(fresh, 2) == 5  # role, two words, finish, usage


async def test_an_idle_one_that_is_stuck_is_found_by_its_silence(runtime: Path) -> None:
    """The front of an engine whose core is frozen says 200; one that says nothing is asked for a token."""
    async with fake.supervised(runtime) as supervisor:
        upstream = await supervisor.lease(fake.model(runtime, "m")).granted()
        stop_main(supervisor)
        await upstream.died.wait()
        assert "one of its processes is stopped" in upstream.explain()


async def test_a_death_behind_a_stopped_guard_is_found(runtime: Path) -> None:
    """It cannot tell of it; but nothing answers any more, and whoever is killed for that is roused first."""
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", "--fork")
        upstream = await supervisor.lease(model).granted()
        everybody = procfs.descendants(guard_of(supervisor), procfs.processes())
        os.kill(guard_of(supervisor), signal.SIGSTOP)
        kill_main(supervisor)
        await upstream.died.wait()
        assert not any(alive(pid) for pid in everybody)
        assert await ask(await supervisor.lease(model).granted(), 2) == 5


async def test_an_idle_one_is_asked_for_a_token_now_and_then(runtime: Path) -> None:
    pace = dataclasses.replace(fake.FAST, idle=0.2)
    async with fake.supervised(runtime, pace=pace) as supervisor:
        model = fake.model(runtime, "m", "--stall-after-tokens", "1")
        upstream = await supervisor.lease(model).granted()  # the first token is the first probe's
        await upstream.died.wait()
        assert "made no token" in upstream.explain()


async def test_one_that_sleeps_is_asked_for_nothing(runtime: Path) -> None:
    """However long it is idle, and whatever was suspected of it before: it would answer with an error."""
    pace = dataclasses.replace(fake.FAST, idle=0.1)
    async with fake.supervised(runtime, pace=pace) as supervisor:
        awake = await supervisor.lease(fake.model(runtime, "awake")).granted()
        lease = supervisor.lease(fake.model(runtime, "m", "--sleeps"))
        upstream = await lease.granted()
        lease.release()
        supervisor.interruptions.rest(lease.key, Rest.SLEEP, 1, "the test wants it")
        await wait_for(lambda: state_of(supervisor) is State.ASLEEP)
        before, others = _probed(upstream), _probed(awake)
        upstream.suspect()
        await wait_for(lambda: _probed(awake) >= others + 3)
        assert (_probed(upstream), state_of(supervisor)) == (before, State.ASLEEP)
        woken = supervisor.lease(lease.model)
        await woken.granted()
        await wait_for(lambda: _probed(upstream) > before)  # awake, it is looked after again
        woken.release()


async def test_one_that_answers_nothing_but_errors_is_replaced(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", "--error-500-after", "1")
        upstream = await supervisor.lease(model).granted()
        assert await ask(upstream) == 13
        await upstream.died.wait()  # its health check fails, and so does every completion
        assert "answers nothing but errors" in upstream.explain()


async def test_a_suspicion_is_looked_into(runtime: Path) -> None:
    """Its health check is fine, its answers are not: only who asked can have noticed."""
    async with fake.supervised(runtime) as supervisor:
        upstream = await supervisor.lease(fake.model(runtime, "m", "--error-500")).granted()
        upstream.suspect()
        await upstream.died.wait()
        assert "answers nothing but errors" in upstream.explain()


async def test_a_health_check_alone_convinces_nobody(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", "--hang-health")
        upstream = await supervisor.lease(model).granted()
        pid = supervisor.rows()[0].pid
        await wait_for(lambda: upstream.pieces == 0 and _probed(upstream) >= 3)
        assert await ask(upstream) == 13
        assert [(row.state, row.pid) for row in supervisor.rows()] == [(State.READY, pid)]


_PROBES: dict[Upstream, int] = {}


@pytest.fixture(autouse=True)
def _count_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    _PROBES.clear()
    begin = Upstream.begin

    def counted(self: Upstream, size: int) -> Work:
        _PROBES[self] = _PROBES.get(self, 0) + 1
        return begin(self, size)

    monkeypatch.setattr(Upstream, "begin", counted)


def _probed(upstream: Upstream) -> int:
    return _PROBES.get(upstream, 0)


@pytest.mark.parametrize(
    ("vices", "prompt"),
    [
        (("--prefill", "2"), "long " * 50_000),
        (("--prefill", "2", "--pings"), "long " * 50_000),
        (("--token-delay", "0.3"), ""),
        (("--slow-reader", "0.01"), "long " * 5_000),
    ],
)
async def test_a_slow_one_is_left_alone(runtime: Path, vices: tuple[str, ...], prompt: str) -> None:
    async with fake.supervised(runtime) as supervisor:
        upstream = await supervisor.lease(fake.model(runtime, "m", *vices)).granted()
        assert await ask(upstream, 4, prompt=prompt) == 7
        (row,) = supervisor.rows()
        assert (row.state, row.restarts) == (State.READY, 0)


async def test_a_long_prompt_after_short_ones_is_left_alone(runtime: Path) -> None:
    """It takes sixteen times as long as one of a quarter of its size, and meanwhile nobody else gets a token."""
    pace = dataclasses.replace(fake.FAST, limits=dataclasses.replace(fake.LIMITS, margin=1.5))
    async with fake.supervised(runtime, pace=pace) as supervisor:
        upstream = await supervisor.lease(fake.model(runtime, "m", "--attention", "0.27")).granted()
        for _ in range(5):
            assert await ask(upstream, 2, prompt="x" * 75_000) == 5
        assert await ask(upstream, 2, prompt="x" * 300_000) == 5
        (row,) = supervisor.rows()
        assert (row.state, row.restarts) == (State.READY, 0)


async def test_a_slow_client_is_no_fault_of_the_engine(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        upstream = await supervisor.lease(fake.model(runtime, "m")).granted()
        assert await ask(upstream, 2, slow=0.3) == 5
        assert _probed(upstream) == 1, "only the client's own request"


@pytest.mark.parametrize("vice", ["--busy-load", "--lying-metrics"])
async def test_a_slow_start_is_left_alone(runtime: Path, vice: str) -> None:
    """Four times as long as a ready engine may be quiet here."""
    async with fake.supervised(runtime) as supervisor:
        upstream = await supervisor.lease(fake.model(runtime, "m", "--slow", "2", vice)).granted()
        assert await ask(upstream) == 13
        assert supervisor.rows()[0].restarts == 0


async def test_a_death_is_told_as_a_death(runtime: Path) -> None:
    """A dying engine looks stuck for a moment; what is told is how it ended."""
    async with fake.supervised(runtime) as supervisor:
        upstream = await supervisor.lease(fake.model(runtime, "m")).granted()
        upstream.suspect()
        kill_main(supervisor)
        await upstream.died.wait()
        assert "ended with -9" in upstream.explain()


async def test_what_processes_do_is_told_apart(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        upstream = await supervisor.lease(fake.model(runtime, "m", "--prefill", "2")).granted()
        pid = supervisor.rows()[0].pid
        meter = Meter()
        assert meter.read([pid]).computing, "nothing is known yet"
        await anyio.sleep(0.3)
        idle = meter.read([pid])
        async with anyio.create_task_group() as group:
            group.start_soon(ask, upstream)
            await wait_for(lambda: upstream.requests)
            await anyio.sleep(0.3)
            busy = meter.read([pid])
            await wait_for(lambda: not upstream.requests)
        os.kill(pid, signal.SIGSTOP)
        await wait_for(lambda: meter.read([pid]).stopped)
        os.kill(pid, signal.SIGCONT)
        await wait_for(lambda: not meter.read([pid]).stopped)
        assert (idle.computing, idle.stopped) == (False, False)
        assert (busy.computing, busy.stopped) == (True, False)


async def test_where_a_stuck_one_stood_is_in_its_log(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = runtime / "py-spy"
    spy.write_text('#!/bin/sh\necho "Process $3"\necho "    wait (fake.py:1)"\n')
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", str(runtime), prepend=":")
    async with fake.supervised(runtime, capture_stacks=True) as supervisor:
        upstream = await supervisor.lease(fake.model(runtime, "m")).granted()
        pid = supervisor.rows()[0].pid
        stop_main(supervisor)
        await upstream.died.wait()
        ring = supervisor.logs(ModelName.parse("m"))
        assert ring is not None
        said = ring.last(100)
    assert any(line.startswith(f"stuck: process {pid}: ") and "state T" in line for line in said), said
    assert f"stuck: Process {pid}" in said
    assert "stuck:     wait (fake.py:1)" in said
