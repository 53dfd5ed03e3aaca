"""The supervisor over real children: who gets what, when it goes, what is seen meanwhile."""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from hyperllamad.core.errors import BusyError, ClosingError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Kind
from hyperllamad.core.names import ModelName
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.supervision.upstream import Upstream
from hyperllamad.telemetry import LineFormatter
from tests.supervision import fake
from tests.supervision.processes import alive, descriptors, mine, wait_for


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


async def chat(upstream: Upstream, **body: Any) -> str:
    """The text of a whole answer."""
    async with upstream.session.post(Kind.CHAT, json={"model": upstream.name, "messages": [], **body}) as reply:
        assert reply.status == 200
        text: str = (await reply.json())["choices"][0]["message"]["content"]
        return text


async def test_a_lease_loads_the_model_and_answers(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m")
        lease = supervisor.lease(model)
        upstream = await lease.granted()
        assert await chat(upstream, max_tokens=3) == "one two three"
        assert (upstream.engine, upstream.model, upstream.name) == (fake.ENGINE, model, model.digest[:12])
        assert upstream.settings == supervisor.settings(model)
        assert not upstream.died.is_set()
        lease.release()


async def test_many_requests_share_one_child(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", parallel=20)
        leases = [supervisor.lease(model) for _ in range(20)]
        upstreams = {id(await lease.granted()) for lease in leases}
        assert len(upstreams) == 1
        (row,) = supervisor.rows()
        assert (row.running, row.waiting) == (20, 0)
        for lease in leases:
            lease.release()
        (row,) = supervisor.rows()
        assert row.running == 0


async def test_two_names_of_the_same_weights_are_one_instance(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        one, two = fake.model(runtime, "m", digest="d" * 64), fake.model(runtime, "n", digest="d" * 64)
        first = await supervisor.lease(one).granted()
        second = await supervisor.lease(two).granted()
        assert first is second
        assert [row.name for row in supervisor.rows()] == ["m:latest"]
        for name in ("m", "n"):
            ring = supervisor.logs(ModelName.parse(name))
            assert ring is not None
            assert "ready" in ring.last(10)


async def test_keep_alive_zero_ends_it_after_its_request(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m"), keep_alive=0)
        upstream = await lease.granted()
        (row,) = supervisor.rows()
        lease.release()
        await upstream.died.wait()
        assert not alive(row.pid)
        assert upstream.explain() == "the model was unloaded"
        await wait_for(lambda: list((runtime / "e").iterdir()) == [])


async def test_the_one_timer_ends_what_nobody_uses(runtime: Path) -> None:
    """Two deadlines, the later one set first: the timer must notice that the next one has come nearer."""
    async with fake.supervised(runtime) as supervisor:
        slow, quick = (supervisor.lease(fake.model(runtime, name), keep_alive=k) for name, k in (("s", 60), ("q", 0.1)))
        await slow.granted()
        upstream = await quick.granted()
        slow.release()
        quick.release()
        with anyio.fail_after(5):
            await upstream.died.wait()
            if fake.row(supervisor, "q"):
                await fake.wait_change(supervisor, "q", State.GONE)
        assert [row.name for row in supervisor.rows()] == ["s:latest"]


async def test_one_place_is_shared_by_taking_turns(runtime: Path) -> None:
    async with fake.supervised(runtime, max_loaded_models=1) as supervisor:
        first = supervisor.lease(fake.model(runtime, "a"))
        upstream = await first.granted()
        second = supervisor.lease(fake.model(runtime, "b"))
        (row,) = [row for row in supervisor.rows() if row.state is State.DRAINING]
        assert row.name == "a:latest"
        assert await chat(upstream) == "one two three four five six seven eight nine ten"
        first.release()
        assert await chat(await second.granted(), max_tokens=1) == "one"
        assert upstream.died.is_set()
        assert [row.name for row in supervisor.rows()] == ["b:latest"]


async def test_two_models_are_loaded_at_once(runtime: Path) -> None:
    async with fake.supervised(runtime, max_loaded_models=2) as supervisor:
        upstreams = [await supervisor.lease(fake.model(runtime, name)).granted() for name in "ab"]
        assert [await chat(upstream, max_tokens=2) for upstream in upstreams] == ["one two"] * 2
        assert [row.state for row in supervisor.rows()] == [State.READY] * 2


async def test_a_full_queue_and_a_closing_daemon_refuse(runtime: Path) -> None:
    async with fake.supervised(runtime, max_queue=1) as supervisor:
        model = fake.model(runtime, "m", "--slow", "30")
        first, second = supervisor.lease(model), supervisor.lease(model)
        with pytest.raises(BusyError):
            await second.granted()
        supervisor.close(now=True)
        for lease in (first, supervisor.lease(model)):
            with pytest.raises(ClosingError):
                await lease.granted()


async def test_unload_waits_for_requests_and_cut_does_not(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m")
        assert not supervisor.unload(model)
        lease = supervisor.lease(model)
        upstream = await lease.granted()
        assert supervisor.unload(model)
        assert await chat(upstream, max_tokens=1) == "one"
        async with upstream.session.post(Kind.CHAT, json={"stream": True, "words": 10**6}) as reply:
            assert await reply.content.readline()
            assert supervisor.unload(model, cut=True)
            with pytest.raises(aiohttp.ClientError):
                while await reply.content.readline():
                    pass
        assert upstream.explain() == "the model was unloaded"
        await upstream.died.wait()
        lease.release()


async def test_a_model_that_grows_leaves_its_smaller_self_after_its_requests(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", context_length=16384)
        small = supervisor.lease(model)
        upstream = await small.granted()
        assert upstream.settings.context == 4096
        supervisor.grow(model, 8192)
        large = supervisor.lease(model)
        assert (await large.granted()).settings.context == supervisor.settings(model).context == 8192
        assert await chat(upstream, max_tokens=1) == "one", "the smaller one still has a request"
        small.release()
        await upstream.died.wait()
        supervisor.grow(model, 1 << 30)
        assert supervisor.settings(model).context == 16384, "never beyond what it was trained for"
        supervisor.grow(model, 0)
        assert supervisor.settings(model).context == 4096
        large.release()


async def test_keep_changes_the_timer_without_a_request(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m")
        assert not supervisor.keep(model, 1.0)
        lease = supervisor.lease(model)
        upstream = await lease.granted()
        lease.release()
        assert supervisor.keep(model, float("inf"))
        (row,) = supervisor.rows()
        assert row.until is None
        assert supervisor.keep(model, 0)
        await upstream.died.wait()


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


async def test_rows_say_what_ps_needs(runtime: Path) -> None:
    async with fake.supervised(runtime, keep_alive="90s") as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m", "--worker", context=2048))
        (row,) = supervisor.rows()
        assert (row.state, row.phase, row.waiting, row.pid) == (State.STARTING, "starting", 1, 0)
        await lease.granted()
        (row,) = supervisor.rows()
        assert (row.name, row.digest, row.engine) == ("m:latest", lease.model.digest, "llama_cpp")
        assert (row.state, row.phase, row.elapsed, row.cause) == (State.READY, "", 0.0, "")
        assert (row.context, row.parallel, row.processor) == (2048, 4, "100% CPU")
        assert (row.running, row.waiting, row.restarts) == (1, 0, 0)
        assert alive(row.pid)
        assert 5 << 20 < row.size < 200 << 20
        assert abs(row.since - time.time()) < 5
        assert row.until is not None
        assert abs(row.until - time.time() - 90) < 5
        lease.release()
        (idle,), (again,) = supervisor.rows(), supervisor.rows()
        assert idle.until == again.until, "clients hold two answers side by side"


async def test_watchers_see_every_step_and_phase(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        with supervisor.watch() as changes, supervisor.watch():  # the second one never reads
            lease = supervisor.lease(fake.model(runtime, "m"), keep_alive=0)
            await lease.granted()
            lease.release()
            seen: list[tuple[str, str]] = []
            async for change in changes:
                seen.append((change.state, change.phase))
                if change.state is State.GONE:
                    break
    steps = list(dict.fromkeys(seen))
    assert steps == [
        ("waiting", ""),
        ("starting", ""),
        ("starting", "starting"),
        ("starting", "weights"),
        ("starting", "compiling"),
        ("starting", "warming"),
        ("ready", ""),
        ("stopping", ""),
        ("gone", ""),
    ]


async def test_watchers_end_at_shutdown(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        changes = supervisor.watch()
    with changes:
        assert [change async for change in changes] == []


async def test_logs_outlive_their_engine(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        name = ModelName.parse("m")
        assert supervisor.logs(name) is None
        lease = supervisor.lease(fake.model(runtime, "m"), keep_alive=0)
        upstream = await lease.granted()
        ring = supervisor.logs(name)
        assert ring is not None
        with ring.follow() as lines:
            lease.release()
            await upstream.died.wait()
            assert [line.text async for line in lines] == []  # ends with its engine
        assert supervisor.logs(name) is ring
        assert ring.last(2) == ["phase warming", "ready"]


async def test_each_load_and_end_is_logged_once(runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hyperllamad.supervision")
    async with fake.supervised(runtime) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m"), keep_alive=0)
        upstream = await lease.granted()
        lease.release()
        await upstream.died.wait()
        await fake.wait_unloaded(supervisor)
    messages = [record for record in caplog.records if record.name == "hyperllamad.supervision"]
    assert [record.getMessage().split(" ")[:3] for record in messages] == [
        ["Fake", "starts", "as"],
        ["Fake", "is", "ready"],
        ["Fake", "has", "ended"],
    ]
    line = LineFormatter(journal=False).format(messages[0])
    assert f"model=m:latest engine=llama_cpp instance={lease.key}" in line


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
                async with upstream.session.post(Kind.CHAT, json={"stream": True, "words": 2000}) as reply:
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
                async with upstream.session.get("/metrics") as reply:
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
