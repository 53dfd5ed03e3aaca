"""The supervisor over real children: who gets what, and when it goes."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import aiohttp
import anyio
import pytest

from hyperllamad.core.errors import BusyError, ClosingError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Kind, Model
from hyperllamad.core.names import ModelName
from hyperllamad.supervision.child import Child, _Message
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.supervision.upstream import BASE
from tests.supervision import fake
from tests.supervision.asking import chat
from tests.supervision.processes import alive, wait_for


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


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


async def test_a_lease_knows_whether_others_wait_for_its_end(runtime: Path) -> None:
    async with fake.supervised(runtime, max_loaded_models=1) as supervisor:
        model = fake.model(runtime, "m", parallel=1)
        first = supervisor.lease(model)
        await first.granted()
        assert not first.wanted()
        second = supervisor.lease(model)  # for the only slot
        assert first.wanted()
        second.release()
        assert not first.wanted()
        supervisor.lease(fake.model(runtime, "other"))  # for the only place
        assert first.wanted()
        first.release()
        assert not first.wanted()


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
        async with upstream.session.post(BASE + Kind.CHAT, json={"stream": True, "words": 10**6}) as reply:
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


@pytest.mark.parametrize("first", [True, False])
async def test_one_that_ends_while_it_is_left_holds_nobody_up(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """Its guard tells of its end just before it is left, or while another is waited for."""
    async with fake.supervised(runtime, adopt_within="1m") as supervisor:
        crew = supervisor._crew
        lease = supervisor.lease(fake.model(runtime, "m"))
        await lease.granted()
        life = crew.lives[lease.key]
        heard, left = Child._heard, anyio.Event()

        def ends(child: Child, message: _Message) -> None:
            heard(child, message)
            if message.exit is not None and first:
                assert crew.leave(lease.key, "the server is restarting")
                left.set()

        monkeypatch.setattr(Child, "_heard", ends)
        os.kill(life.pid, signal.SIGKILL)
        if first:
            await left.wait()
        else:
            await life.over.wait()
        with anyio.fail_after(10):
            await crew.wait_left(lease.key)
        assert lease.key not in crew.lives or crew.lives[lease.key] is not life
        lease.release()


async def _has_asked(supervisor: Supervisor, model: Model, client: str) -> None:
    lease = supervisor.lease(model, client=client)
    await lease.granted()
    lease.release()


async def test_few_requests_of_one_client_are_taken_in_at_once_beside_another(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake.FakeEngine, "probe", replace(fake.FakeEngine.probe, begins_early=True))
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", parallel=32)
        await _has_asked(supervisor, model, "light")
        heavy = [supervisor.lease(model, client="heavy") for _ in range(4)]

        def counted() -> tuple[int, int]:
            (row,) = supervisor.rows()
            return row.running, row.waiting

        assert counted() == (2, 2)
        again = supervisor.lease(model, client="light")
        await again.granted()
        heavy[0].begun()
        heavy[0].begun()
        assert counted() == (4, 1)
        await heavy[2].granted()
        heavy[1].release()
        await heavy[3].granted()
        assert counted() == (4, 0)
        for lease in (again, *heavy):
            lease.release()


async def test_where_answers_slow_each_other_a_client_has_a_part_of_the_slots_beside_another(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake.FakeEngine, "slows", True)
    async with fake.supervised(runtime) as supervisor:
        model = fake.model(runtime, "m", parallel=4)
        await _has_asked(supervisor, model, "light")
        heavy = [supervisor.lease(model, client="heavy") for _ in range(3)]
        (row,) = supervisor.rows()
        assert (row.running, row.waiting) == (1, 2)
        for lease in heavy:
            lease.release()
