"""Every vice of an engine, every death: what requests are told, what comes next, and that nobody is left."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from hyperllamad.core.errors import LoadFailedError, LoadTimeoutError, UnsupportedError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Kind
from hyperllamad.core.names import ModelName
from hyperllamad.engines.base import Launch
from hyperllamad.supervision import procfs, stuck
from hyperllamad.supervision.broadcast import Watch
from hyperllamad.supervision.child import Child
from hyperllamad.supervision.lines import LONGEST
from hyperllamad.supervision.logs import MOST_CHARACTERS, MOST_LINES
from hyperllamad.supervision.rows import Change
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.supervision.upstream import Upstream
from tests.supervision import fake
from tests.supervision.processes import alive, descriptors, find, wait_for


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


async def stream(upstream: Upstream, words: int = 10, seen: list[bytes] | None = None) -> list[bytes]:
    """The events of a streamed answer; `seen` has them even if it breaks off."""
    seen = [] if seen is None else seen
    async with upstream.session.post(Kind.CHAT, json={"stream": True, "words": words}) as reply:
        async for line in reply.content:
            if line.strip():
                seen.append(line)
    return seen


def guard_of(supervisor: Supervisor) -> int:
    (life,) = supervisor._crew.lives.values()
    return life.guard


# -- what cannot be killed --------------------------------------------------------------------------------------------


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


# -- loading ---------------------------------------------------------------------------------------------------------


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


# -- serving ---------------------------------------------------------------------------------------------------------


def kill_main(supervisor: Supervisor) -> None:
    os.kill(supervisor.rows()[0].pid, signal.SIGKILL)


def kill_worker(supervisor: Supervisor) -> None:
    main = supervisor.rows()[0].pid
    os.kill(procfs.descendants(main, procfs.processes())[0], signal.SIGKILL)


def kill_guard(supervisor: Supervisor) -> None:
    os.kill(guard_of(supervisor), signal.SIGKILL)


@pytest.mark.parametrize(
    ("vices", "act", "cause"),
    [
        (("--exit-after-tokens", "5"), None, "ended with 0"),
        (("--segv-after-tokens", "5"), None, "ended with -11"),
        (("--freeze-after-tokens", "5"), None, "none of its processes does anything"),
        (("--token-delay", "0.01"), kill_main, "ended with -9"),
        (("--token-delay", "0.01"), kill_worker, "worker process died"),
        (("--token-delay", "0.01", "--ignore-term"), kill_guard, "killed together with its guard"),
    ],
)
async def test_a_death_in_mid_stream_is_explained_and_mended(
    runtime: Path, vices: tuple[str, ...], act: Callable[[Supervisor], None] | None, cause: str
) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", *vices, "--fork", "--worker")
        lease = supervisor.lease(model)
        upstream = await lease.granted()
        everybody = procfs.descendants(guard_of(supervisor), procfs.processes())
        seen: list[bytes] = []

        async def read() -> None:
            with pytest.raises(aiohttp.ClientError):
                await stream(upstream, 10**6, seen)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            if act is not None:
                await wait_for(lambda: len(seen) > 3)
                act(supervisor)
        assert len(seen) > 3
        with anyio.fail_after(2):
            await upstream.died.wait()
        assert cause in upstream.explain()
        assert len(everybody) == 3
        assert not any(alive(pid) for pid in everybody)
        lease.release()
        again = supervisor.lease(model)
        fresh = await again.granted()
        assert fresh is not upstream
        assert len(await stream(fresh, 2)) == 6  # role, two words, finish, usage, [DONE]
        (row,) = supervisor.rows()
        assert row.restarts == 1
        again.release()


async def test_a_crash_when_nobody_asks_is_mended_for_those_who_come(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m")
        lease = supervisor.lease(model)
        await lease.granted()
        lease.release()
        kill_main(supervisor)
        change = await fake.wait_change(supervisor, "m", State.BACKOFF)
        assert "ended with -9" in change.detail
        upstream = await supervisor.lease(model).granted()
        assert await stream(upstream)


async def test_the_death_of_a_process_that_is_not_vital_is_for_the_engine_to_notice(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake.ENGINE, "vital", "")
    async with fake.supervised(runtime) as supervisor:
        upstream = await supervisor.lease(fake.model(runtime, "m", "--worker", "--fork")).granted()
        (row,) = supervisor.rows()
        workers = set(procfs.descendants(row.pid, procfs.processes()))
        assert len(workers) == 2
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        await wait_for(lambda: not any(alive(pid) for pid in workers))
        assert await stream(upstream)
        assert supervisor.rows()[0].pid == row.pid


async def test_term_ignored_is_followed_by_kill(runtime: Path) -> None:
    async with fake.supervised(runtime, stop_timeout="0.2s") as supervisor:
        model = fake.model(runtime, "m", "--ignore-term", "--fork")
        lease = supervisor.lease(model)
        await lease.granted()
        lease.release()
        everybody = procfs.descendants(guard_of(supervisor), procfs.processes())
        with anyio.fail_after(5):
            supervisor.unload(model)
            await fake.wait_unloaded(supervisor)
        assert len(everybody) == 2
        assert not any(alive(pid) for pid in everybody)


async def test_bad_answers_harm_only_their_request(runtime: Path) -> None:
    """What the relay makes of them is its own affair; here: the engine stays, and so does everybody else's lease."""
    async with fake.supervised(runtime) as supervisor:
        upstreams = {}
        for vice in ("--garbage", "--half-sse", "--error-500"):
            upstreams[vice] = await supervisor.lease(fake.model(runtime, vice.strip("-"), vice)).granted()
        assert any(b"not json" in line for line in await stream(upstreams["--garbage"]))
        seen: list[bytes] = []
        with pytest.raises(aiohttp.ClientError):
            await stream(upstreams["--half-sse"], seen=seen)
        assert len(seen) == 3  # the role and two words; half an event is none
        async with upstreams["--error-500"].session.post(Kind.CHAT, json={}) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (500, 500)
        assert [(row.state, row.running) for row in supervisor.rows()] == [(State.READY, 1)] * 3


async def test_a_log_flood_is_kept_within_bounds(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        upstream = await supervisor.lease(fake.model(runtime, "m", "--log-flood", "20")).granted()
        ring = supervisor.logs(ModelName.parse("m"))
        assert ring is not None
        with ring.follow() as lines:  # too slow for this: dropped, not waited for
            await wait_for(lambda: ring.last(1) == ["flood over"])
            got = [line async for line in lines]
        assert 0 < len(got) < 10_000
        assert len(ring) <= MOST_LINES
        assert sum(len(line.text) for line in ring) <= MOST_CHARACTERS
        assert max(len(line.text) for line in ring) <= LONGEST + 10
        assert await stream(upstream)


# -- the end of the daemon -------------------------------------------------------------------------------------------


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
