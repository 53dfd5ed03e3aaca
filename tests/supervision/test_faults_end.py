"""Processes that outlive their kill, and the end of the daemon in every state."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from hyperllamad.core.instance import State
from hyperllamad.supervision import procfs, stuck
from hyperllamad.supervision.child import Child
from tests.supervision import fake
from tests.supervision.deaths import guard_of, kill_main, stream
from tests.supervision.processes import alive, descriptors, find, wait_for


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


async def test_a_process_that_outlives_its_kill_is_named_until_it_ends(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard is stopped, and not roused, so that nobody ends it: as with a process that sits in a driver."""
    monkeypatch.setattr(Child, "_rouse", lambda _: None)
    monkeypatch.setattr(stuck, "STUCK_AFTER", 0.02)
    async with fake.supervised(runtime, stop_timeout="0.1s") as supervisor:
        model = fake.model(runtime, "m", "--ignore-term")
        lease = supervisor.lease(model)
        await lease.granted()
        lease.release()
        row = fake.row(supervisor, "m")
        assert row is not None
        guard = guard_of(supervisor)
        os.kill(guard, signal.SIGSTOP)
        try:
            supervisor.unload(model)
            await wait_for(
                lambda: (now := fake.row(supervisor, "m")) is not None and "was killed and does" in now.cause
            )
            now = fake.row(supervisor, "m")
            assert now is not None
            assert f"process {row.pid} was killed and does not end" in now.cause
            assert now.state is State.STOPPING, "it keeps its place"
        finally:
            os.kill(guard, signal.SIGCONT)
        await wait_for(lambda: not supervisor.rows())


@pytest.mark.parametrize("when", ["loading", "serving"])
async def test_nobody_is_left_when_the_daemon_falls(runtime: Path, when: str) -> None:
    slow = ("--slow", "30") if when == "loading" else ()
    held = []
    for _ in range(3):  # the first time some things are made that stay, such as worker threads
        with pytest.raises(ExceptionGroup):
            async with fake.supervised(runtime) as supervisor:
                lease = supervisor.lease(fake.model(runtime, "m", "--fork", "--ignore-term", *slow))
                if when == "serving":
                    await lease.granted()
                else:
                    await wait_for(lambda: supervisor.rows()[0].pid)
                raise ZeroDivisionError
        assert find(str(runtime)) == set()
        assert list((runtime / "e").iterdir()) == []
        held.append(descriptors())
    assert held[1] == held[2]


async def test_closing_now_ends_what_is_still_loading(runtime: Path) -> None:
    async with fake.supervised(runtime, stop_timeout="0.2s") as supervisor:
        for name in "ab":
            supervisor.lease(fake.model(runtime, name, "--slow", "30", "--ignore-term", "--fork"))
        await wait_for(lambda: all(row.pid for row in supervisor.rows()))
        with anyio.fail_after(5):
            supervisor.close(now=True)
            await supervisor.wait_empty()


async def test_a_process_that_outlives_its_kill_holds_the_end_up_for_a_bounded_time(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One stuck in a driver; here the kill is simply not passed on."""
    monkeypatch.setattr("hyperllamad.supervision.supervisor.LAST_WAIT", 0.1)
    told: list[Any] = []
    monkeypatch.setattr("hyperllamad.supervision.life.Life.kill", lambda life: told.append(life))  # noqa: PLW0108 - a method
    async with fake.supervised(runtime, stop_timeout="0.1s", grace="0s") as supervisor:
        await supervisor.lease(fake.model(runtime, "m", "--ignore-term")).granted()
        supervisor.close()
        with anyio.fail_after(5):
            await supervisor.wait_empty()
        assert "do not end" in caplog.text
    assert told


async def test_eviction_takes_turns_however_often(runtime: Path) -> None:
    async with fake.supervised(runtime, max_loaded_models=1) as supervisor:
        served = []

        async def ask(name: str) -> None:
            lease = supervisor.lease(fake.model(runtime, name))
            try:
                await stream(await lease.granted())
                served.append(name)
            finally:
                lease.release()

        async with anyio.create_task_group() as group:
            for name in "abcabcabc":
                group.start_soon(ask, name)
        assert sorted(served) == sorted("abcabcabc")


async def test_died_is_not_told_before_the_end(runtime: Path) -> None:
    """Restarts must not overlap: `died` and BACKOFF come when nobody is left, the new child after that."""
    async with fake.supervised(runtime) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m", "--fork", "--worker"))
        upstream = await lease.granted()
        everybody = procfs.descendants(guard_of(supervisor), procfs.processes())
        kill_main(supervisor)
        await upstream.died.wait()
        assert not any(alive(pid) for pid in everybody)
        if not upstream.session.closed:
            with pytest.raises(aiohttp.ClientConnectionError, match="ended with -9"):
                await stream(upstream)
        await wait_for(lambda: upstream.session.closed)
