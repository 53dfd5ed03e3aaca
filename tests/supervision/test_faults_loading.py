"""What goes wrong before an engine is ready: what requests are told, what comes next, and that nobody is left."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hyperllamad.core.errors import LoadFailedError, LoadTimeoutError, UnsupportedError
from hyperllamad.core.instance import State
from hyperllamad.core.names import ModelName
from hyperllamad.engines.base import Launch
from hyperllamad.supervision.broadcast import Watch
from hyperllamad.supervision.rows import Change
from tests.supervision import fake
from tests.supervision.deaths import stream
from tests.supervision.processes import alive, wait_for


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


async def test_one_that_never_gets_ready_is_killed_in_time(runtime: Path) -> None:
    async with fake.supervised(runtime, load_timeout="0.4s", stop_timeout="5s") as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m", "--never-ready", "--ignore-term", "--fork"))
        with pytest.raises(LoadTimeoutError, match=r"was not ready within 0\.4s"):
            await lease.granted()
        await wait_for(lambda: not supervisor._crew.lives)
        (row,) = supervisor.rows()
        assert (row.state, row.pid, row.size) == (State.FAILED, 0, 0)
        assert "not ready" in row.cause


async def test_one_that_cannot_start_is_tried_again_and_then_given_up(runtime: Path) -> None:
    async with fake.supervised(runtime, restart_budget=1) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m", "--exit", "9"))
        with pytest.raises(LoadFailedError, match=r"told to exit with 9 .look at the test"):
            await lease.granted()
        ring = supervisor.logs(ModelName.parse("m"))
        assert ring is not None
        assert sum("told to exit" in line for line in ring.last(100)) == 2
        (row,) = supervisor.rows()
        assert (row.state, row.restarts) == (State.FAILED, 2)
        assert "told to exit with 9" in row.cause


async def test_what_would_fail_again_is_not_tried_again(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        leases = [supervisor.lease(fake.model(runtime, "m", "--exit", "2")) for _ in range(3)]
        for lease in leases:
            with pytest.raises(LoadFailedError, match="told to exit with 2"):
                await lease.granted()
        ring = supervisor.logs(ModelName.parse("m"))
        assert ring is not None
        assert sum("told to exit" in line for line in ring.last(100)) == 1


async def test_retry_forgets_a_failure(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m")
        Path(model.path).rename(runtime / "away")
        with pytest.raises(LoadFailedError, match="does not exist"):
            await supervisor.lease(model).granted()
        (runtime / "away").rename(model.path)
        with pytest.raises(LoadFailedError):  # for a moment the answer stays the same
            await supervisor.lease(model).granted()
        supervisor.retry(model)
        await supervisor.lease(model).granted()


async def test_a_kill_while_loading_is_a_crash_like_any_other(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m", "--slow", "0.3"))
        first = await fake.wait_change(supervisor, "m", State.STARTING)
        while first.phase != "weights":
            first = await fake.wait_change(supervisor, "m", State.STARTING)
        (row,) = supervisor.rows()
        os.kill(row.pid, signal.SIGKILL)
        crash = await fake.wait_change(supervisor, "m", State.BACKOFF)
        assert "ended with -9" in crash.detail
        upstream = await lease.granted()
        assert await stream(upstream)
        (row,) = supervisor.rows()
        assert row.restarts == 1


async def test_unloading_while_loading_ends_it(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", "--slow", "30")
        lease = supervisor.lease(model)
        await wait_for(lambda: supervisor.rows()[0].pid)
        pid = supervisor.rows()[0].pid
        lease.release()
        assert supervisor.unload(model)
        await fake.wait_unloaded(supervisor)
        assert not alive(pid)


async def test_one_that_loads_on_though_told_to_end_is_not_shown_as_loading(runtime: Path) -> None:
    async with fake.supervised(runtime, stop_timeout="0.6s") as supervisor:
        model = fake.model(runtime, "m", "--slow", "0.6", "--ignore-term")
        with supervisor.watch() as changes:
            supervisor.lease(model).release()
            async for change in changes:
                if change.phase == "weights":
                    supervisor.unload(model)
                if change.state is State.STOPPING:
                    break
            after = [change.state async for change in _until_gone(changes)]
        ring = supervisor.logs(ModelName.parse("m"))
        assert ring is not None
        assert "phase warming" in ring.last(10)
        assert after == [State.GONE]


async def _until_gone(changes: Watch[Change]) -> AsyncIterator[Change]:
    async for change in changes:
        yield change
        if change.state is State.GONE:
            return


async def test_unloading_before_the_spawn_starts_nothing(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", "--slow", "30")
        supervisor.lease(model).release()
        supervisor.unload(model)
        await fake.wait_unloaded(supervisor)
        ring = supervisor.logs(ModelName.parse("m"))
        assert ring is not None
        assert ring.last(10) == []


async def test_a_missing_model_is_refused_before_anything_starts(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m")
        Path(model.path).unlink()
        with pytest.raises(LoadFailedError, match=r"m\.gguf does not exist"):
            await supervisor.lease(model).granted()
        assert not (runtime / "e").exists()


async def test_a_launch_that_cannot_be_built_is_its_own_explanation(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Launch:
        raise UnsupportedError("the fake engine has no such option")

    monkeypatch.setattr(fake.FakeEngine, "launch", refuse)
    async with fake.supervised(runtime) as supervisor:
        with pytest.raises(UnsupportedError, match="no such option"):
            await supervisor.lease(fake.model(runtime, "m")).granted()
        await wait_for(lambda: list((runtime / "e").iterdir()) == [])


async def test_a_program_that_is_gone_is_named(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Launch(("/gone/bin/python", "-m", "engine"), {}, "/")
    monkeypatch.setattr(fake.FakeEngine, "launch", lambda *_: launch)
    async with fake.supervised(runtime) as supervisor:
        with pytest.raises(LoadFailedError, match=r"/gone/bin/python cannot be started: No such file.*engine install"):
            await supervisor.lease(fake.model(runtime, "m")).granted()


async def test_a_runtime_directory_too_deep_for_a_socket_is_explained(runtime: Path) -> None:
    deep = runtime / ("d" * 100)
    deep.mkdir()
    async with fake.supervised(deep) as supervisor:
        with pytest.raises(LoadFailedError, match=r"too long a path.*paths\.runtime"):
            await supervisor.lease(fake.model(runtime, "m")).granted()
