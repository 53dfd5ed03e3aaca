"""What goes wrong while an engine serves: what requests are told, what comes next, and that nobody is left."""

from __future__ import annotations

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
from hyperllamad.supervision import procfs
from hyperllamad.supervision.lines import LONGEST
from hyperllamad.supervision.logs import MOST_CHARACTERS, MOST_LINES
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.supervision.upstream import BASE
from tests.supervision import fake
from tests.supervision.deaths import guard_of, kill_guard, kill_main, kill_worker, stream
from tests.supervision.processes import alive, wait_for


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


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
        async with upstreams["--error-500"].session.post(BASE + Kind.CHAT, json={}) as reply:
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
