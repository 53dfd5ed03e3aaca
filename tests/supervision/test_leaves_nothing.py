"""However clients, engines and the daemon end, over real children: no lease, no process and no timer is left."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from hyperllamad.core.models import Kind
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.supervision.upstream import BASE, Upstream
from tests.supervision import fake
from tests.supervision.asking import chat
from tests.supervision.processes import descriptors, mine, wait_for


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


async def test_shutdown_lets_requests_finish_within_the_grace(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m", "--token-delay", "0.01"))
        upstream = await lease.granted()
        supervisor.close()
        assert (await chat(upstream)).endswith("ten")
        lease.release()
        await supervisor.wait_empty()
        assert upstream.explain()


async def test_shutdown_cuts_what_outlasts_the_grace(runtime: Path) -> None:
    async with fake.supervised(runtime, grace="0.2s") as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m", "--token-delay", "0.02"))
        upstream = await lease.granted()
        began = time.monotonic()
        supervisor.close()
        with pytest.raises(aiohttp.ClientError):
            await chat(upstream, words=10**6)
        assert upstream.explain() == "the server is shutting down"
        await supervisor.wait_empty()
        assert 0.2 <= time.monotonic() - began < 5


async def test_fifty_rude_clients_leave_no_lease(runtime: Path) -> None:
    rng = random.Random(7)
    outcomes = {"before the grant": 0, "in the stream": 0, "served": 0}

    async def client(supervisor: Supervisor, leaves: str) -> None:
        lease = supervisor.lease(fake.model(runtime, rng.choice("ab"), "--slow", "0.1", parallel=50))
        lines, outcome = rng.randrange(1, 1000), "before the grant"
        try:
            with anyio.CancelScope() as connection:
                if leaves == "before the grant":
                    for _ in range(rng.randrange(9)):  # rounds of the loop, in which no engine can start
                        await anyio.sleep(0)
                    connection.cancel()
                upstream = await lease.granted()
                outcome = "in the stream"
                async with upstream.session.post(BASE + Kind.CHAT, json={"stream": True, "words": 2000}) as reply:
                    while await reply.content.readline():
                        lines -= 1
                        if lines == 0 and leaves == "in the stream":
                            connection.cancel()
                            await anyio.sleep(0)  # here it ends: what was read already would be given without waiting
                outcome = "served"
        finally:
            lease.release()
            lease.release()
            outcomes[outcome] += 1

    async with fake.supervised(runtime) as supervisor:
        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(client, supervisor, tuple(outcomes)[number % 3])
        assert outcomes == {"before the grant": 17, "in the stream": 17, "served": 16}
        assert all((row.running, row.waiting) == (0, 0) for row in supervisor.rows())
        for name in "ab":  # and the engines have noticed too
            lease = supervisor.lease(fake.model(runtime, name, "--slow", "0.1", parallel=50))
            upstream = await lease.granted()

            async def running(upstream: Upstream = upstream) -> int:
                async with upstream.session.get(BASE + "/metrics") as reply:
                    return int((await reply.text()).split()[1])

            with anyio.fail_after(5):
                while await running():
                    await anyio.sleep(0.01)
            lease.release()


async def test_a_grant_and_a_hang_up_in_the_same_moment_leave_no_lease(runtime: Path) -> None:
    """The client goes after the grant was decided and before its task has run again."""
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m")
        await supervisor.lease(model).granted()
        lease = supervisor.lease(model)  # granted here and now
        (row,) = supervisor.rows()
        assert row.running == 2
        lease.release()
        (row,) = supervisor.rows()
        assert row.running == 1


async def test_thirty_loads_leave_nothing_behind(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:

        async def cycle() -> None:
            lease = supervisor.lease(fake.model(runtime, "m", "--fork"), keep_alive=0)
            upstream = await lease.granted()
            assert await chat(upstream, max_tokens=1) == "one"
            lease.release()
            await fake.wait_unloaded(supervisor)

        await cycle()  # whatever is made once (worker threads, say) is made now
        before = descriptors(), mine()
        for _ in range(30):
            await cycle()
        await wait_for(lambda: (descriptors(), mine()) == before)
        assert supervisor._crew.plans == {}
        assert supervisor._crew.lives == {}
        assert supervisor._performer.leases == {}


async def test_nothing_wakes_an_idle_supervisor(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        assert supervisor._performer.alarm.sleeps_until == float("inf")
        ticks = 0
        tick = supervisor._fleet.tick

        def counting(now: float) -> Any:
            nonlocal ticks
            ticks += 1
            return tick(now)

        supervisor._fleet.tick = counting  # type: ignore[method-assign]
        await anyio.sleep(0.2)  # a stretch of idle time, not a wait for anything
        assert ticks == 0


async def test_a_stale_socket_directory_is_swept_at_start(runtime: Path) -> None:
    stale = runtime / "e" / "0000beef"
    stale.mkdir(parents=True)
    (stale / "e.sock").touch()
    async with fake.supervised(runtime):
        assert list((runtime / "e").iterdir()) == []


async def test_an_unexpected_exception_ends_the_run(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(fake.FakeEngine, "phase", bug)
    with pytest.raises(ExceptionGroup) as caught:
        async with fake.supervised(runtime) as supervisor:
            await supervisor.lease(fake.model(runtime, "m")).granted()
    assert caught.group_contains(ZeroDivisionError)
