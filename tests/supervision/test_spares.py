"""Prepared processes: who becomes what, and that none of them outlives anybody."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import signal
import sys
from pathlib import Path

import anyio
import msgspec
import pytest

from hyperllamad.config.tables import EngineTable
from hyperllamad.core.errors import BadRequestError
from hyperllamad.core.instance import State
from hyperllamad.core.models import UNLIMITED, Limits
from hyperllamad.core.names import ModelName
from hyperllamad.engines.base import Host, Launch, Place, Preparation
from hyperllamad.supervision import machine, place, procfs
from hyperllamad.supervision.child import Exit
from hyperllamad.supervision.gpus import GpuReader
from hyperllamad.supervision.housing import Housing
from hyperllamad.supervision.spares import Prepared, Spare
from hyperllamad.supervision.supervisor import Supervisor
from tests.supervision import fake
from tests.supervision.processes import alive, command, wait_for

ON = EngineTable(prepare="on")


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


async def prepared(supervisor: Supervisor) -> int:
    """The process that waits, once it is there; it may still be importing."""
    await wait_for(lambda: waiting(supervisor))
    (pid,) = waiting(supervisor)
    return pid


def waiting(supervisor: Supervisor) -> list[int]:
    guards = supervisor._crew._spares.guards.values()
    below = [pid for guard in guards for pid in procfs.descendants(guard, procfs.processes()) if pid != guard]
    return [pid for pid in below if command(pid).startswith(sys.executable + " -I -S " + str(fake.PROGRAM))]


async def serve(supervisor: Supervisor, root: Path, name: str, *vices: str) -> int:
    """Load a model; its engine's main process."""
    lease = supervisor.lease(fake.model(root, name, *vices))
    await lease.granted()
    lease.release()
    row = fake.row(supervisor, name)
    assert row is not None
    return row.pid


async def test_all_of_it_is_counted_as_prepared(runtime: Path) -> None:
    """Its guard as well: what `info` calls ours is then accounted for when nothing is loaded."""
    async with fake.supervised(runtime, engine=ON) as supervisor:
        await prepared(supervisor)
        seen: list[tuple[int, int]] = []
        with anyio.move_on_after(10):
            while not seen or abs(seen[-1][0] - seen[-1][1]) > 1 << 20:  # it grows while it imports
                ours = (await machine.read(GpuReader())).ours
                seen.append((ours, supervisor.prepared()[fake.HOME.id]))
                await anyio.sleep(0.05)
        assert abs(seen[-1][0] - seen[-1][1]) <= 1 << 20, seen


async def test_a_start_takes_the_one_that_waits_and_the_next_gets_another(runtime: Path) -> None:
    async with fake.supervised(runtime, engine=ON) as supervisor:
        first = await prepared(supervisor)
        assert supervisor.prepared() == {fake.HOME.id: pytest.approx(15e6, rel=1)}
        assert await serve(supervisor, runtime, "m") == first
        second = await prepared(supervisor)
        assert await serve(supervisor, runtime, "n") == second != first
        ring = supervisor.logs(ModelName.parse("m"))
        assert ring is not None
        text = "\n".join(ring.last(100))
        assert "waiting for orders" in text  # what it said before it was anybody's
        assert text.index("waiting for orders") < text.index(f"prepared {first}") < text.index("ready")


async def test_without_it_every_start_is_a_start(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        await serve(supervisor, runtime, "m")
        assert supervisor.prepared() == {}
        ring = supervisor.logs(ModelName.parse("m"))
        assert ring is not None
        assert "prepared" not in "\n".join(ring.last(100))


async def test_one_that_died_unused_costs_a_warning(runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with fake.supervised(runtime, engine=ON) as supervisor:
        os.kill(await prepared(supervisor), signal.SIGKILL)
        await wait_for(lambda: not supervisor.prepared())
        assert await serve(supervisor, runtime, "m")
        assert await prepared(supervisor)  # the next start has one again
    assert [record.message for record in caplog.records] == [
        "a prepared process has ended by itself: the fake engine ended with -9"
    ]


async def test_one_that_dies_as_it_gets_its_orders_is_replaced_by_a_start(
    runtime: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fake.supervised(runtime, engine=ON, adopt_within="1m") as supervisor:
        first = await prepared(supervisor)
        os.kill(first, signal.SIGSTOP)
        lease = supervisor.lease(fake.model(runtime, "m"))
        await wait_for(lambda: not supervisor.prepared())  # it is taken
        os.kill(first, signal.SIGKILL)
        await lease.granted()
        row = fake.row(supervisor, "m")
        assert row is not None
        assert (row.pid != first, row.restarts) == (True, 0)
        assert supervisor._crew.lives[lease.key].can_be_left, "the next life of the daemon can go on with it"
        lease.release()
    assert "a prepared process has ended before it was used" in caplog.text


async def test_a_load_that_is_called_off_takes_the_prepared_process_with_it(runtime: Path) -> None:
    async with fake.supervised(runtime, engine=ON) as supervisor:
        first = await prepared(supervisor)
        os.kill(first, signal.SIGSTOP)
        model = fake.model(runtime, "m")
        lease = supervisor.lease(model)
        await wait_for(lambda: not supervisor.prepared())
        lease.release()
        assert supervisor.unload(model, cut=True)
        with anyio.fail_after(10):
            await fake.wait_unloaded(supervisor)
        assert not Path(f"/proc/{first}").exists()


async def test_an_engine_that_came_from_a_spare_is_stopped_like_any_other(runtime: Path) -> None:
    async with fake.supervised(runtime, engine=ON) as supervisor:
        await prepared(supervisor)
        model = fake.model(runtime, "m", "--worker", "--fork")
        pid = await serve(supervisor, runtime, "m", "--worker", "--fork")
        assert supervisor.unload(model)
        await fake.wait_unloaded(supervisor)
        assert not Path(f"/proc/{pid}").exists()


async def test_one_that_is_taken_before_its_guard_has_told_of_it_is_known_all_the_same(runtime: Path) -> None:
    """The first request may come in the very moment in which the first process is being prepared."""
    async with fake.supervised(runtime, engine=ON) as supervisor:
        spares = supervisor._crew._spares
        await wait_for(lambda: spares._spares)
        (spare,) = spares._spares.values()
        assert spare.child.identity is None
        lease = supervisor.lease(fake.model(runtime, "m"))
        await lease.granted()
        row = fake.row(supervisor, "m")
        assert row is not None
        assert spare.child.identity is not None
        assert row.pid == spare.child.identity.pid
        assert row.size > 0
        lease.release()


async def test_one_that_crashes_is_started_again(runtime: Path) -> None:
    async with fake.supervised(runtime, engine=ON) as supervisor:
        await prepared(supervisor)
        pid = await serve(supervisor, runtime, "m")
        os.kill(pid, signal.SIGKILL)
        await fake.wait_change(supervisor, "m", State.READY)
        row = fake.row(supervisor, "m")
        assert row is not None
        assert row.pid not in {0, pid}


async def test_a_model_with_limits_of_its_own_gets_none(runtime: Path) -> None:
    async with fake.supervised(runtime, engine=ON) as supervisor:
        await prepared(supervisor)
        spares = supervisor._crew._spares

        def launch_in(place: Place) -> Launch:
            return fake.ENGINE.launch(model, supervisor.settings(model), fake.HOME, place)

        model = fake.model(runtime, "m")
        assert spares.take(fake.HOME, Limits(memory=1 << 30), launch_in) is None
        spare = spares.take(fake.HOME, UNLIMITED, launch_in)
        assert spare is not None
        await spare.discard()


async def test_one_whose_home_goes_away_is_ended_without_a_word(
    runtime: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fake.supervised(runtime, engine=ON) as supervisor:
        pid = await prepared(supervisor)
        await supervisor.leave(fake.HOME)
        assert not Path(f"/proc/{pid}").exists()
        await supervisor.leave(fake.HOME)  # there is none any more
        assert supervisor.prepared() == {}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_one_that_nobody_would_take_any_more_is_replaced(runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After a reload, or once another home is in use: it would hold its memory for good."""
    async with fake.supervised(runtime, engine=ON) as supervisor:
        spares = supervisor._crew._spares
        before = await prepared(supervisor)
        config = fake.configuration(runtime, stop_timeout="1s")

        def reload(table: EngineTable) -> None:
            supervisor.configure(msgspec.structs.replace(config, engine={fake.ENGINE.name: table}), lambda _: None)

        reload(ON)
        assert await prepared(supervisor) == before, "it still fits"
        reload(EngineTable(prepare="on", env={"NEW": "1"}))
        await wait_for(lambda: not alive(before))
        other = await prepared(supervisor)
        assert spares._spares[fake.HOME.id].launch.env == {"NEW": "1"}
        reload(EngineTable(prepare="off"))
        await wait_for(lambda: not alive(other))
        assert supervisor.prepared() == {}
        reload(ON)
        old = await prepared(supervisor)
        supervisor._planner._homes.homes = (dataclasses.replace(fake.HOME, id="llama_cpp-2.0-cpu"),)  # type: ignore[attr-defined]
        spares.look()
        await wait_for(lambda: not alive(old))
        assert await prepared(supervisor)
        assert list(spares._spares) == ["llama_cpp-2.0-cpu"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_one_that_was_taken_for_a_launch_that_fails_goes_with_it(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = Housing.launch, itertools.count()

    def once(self: Housing, where: Place) -> Launch:
        if next(calls):
            raise BadRequestError("it cannot be started any more")
        return whole(self, where)

    async with fake.supervised(runtime, engine=ON) as supervisor:
        taken = await prepared(supervisor)
        monkeypatch.setattr(Housing, "launch", once)
        with pytest.raises(BadRequestError, match="any more"):
            await serve(supervisor, runtime, "m")
        assert not alive(taken)
        monkeypatch.setattr(Housing, "launch", whole)
        assert await serve(supervisor, runtime, "n") not in {0, taken}


class _Dead:
    """A spare that cannot take its orders, and takes its time to end."""

    home = fake.HOME

    def __init__(self, where: Place) -> None:
        self.where = where
        self.child = self
        self.ended = anyio.Event()
        self.exit = Exit(1)
        self.told: list[str] = []

    def hand_over(self, *_: object) -> None:
        self.told.append("taken")

    async def order(self, _: Launch) -> bool:
        return False

    def kill(self) -> None:
        self.told.append("kill")

    def terminate(self) -> None:
        self.told.append("terminate")


async def test_no_fresh_start_follows_for_one_that_is_to_end(runtime: Path) -> None:
    where = place.make(runtime, runtime / "cache", Host())
    dead = _Dead(where)
    lines: list[str] = []
    life = Prepared(
        dead,  # type: ignore[arg-type]
        Launch(("sh", "-c", "echo started"), {}, where.cwd),
        on_line=lines.append,
        on_start=lambda: None,
    )
    async with anyio.create_task_group() as group:

        async def run() -> None:
            assert await life.run() == Exit(1)

        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        life.terminate()
        dead.ended.set()
    assert (dead.told, lines) == (["taken", "kill", "terminate"], [])


@pytest.mark.parametrize(
    ("argv", "env", "serves"),
    [
        (("python", "file", "--model"), {"A": "1"}, True),
        (("python", "file"), {"A": "1", "LATE": "2"}, True),
        (("python", "other"), {"A": "1"}, False),
        (("python", "file"), {"A": "2"}, False),
        (("python", "file"), {"A": "1", "B": "2"}, False),
        (("python", "file"), {}, False),
    ],
)
async def test_what_it_can_become(argv: tuple[str, ...], env: dict[str, str], serves: bool) -> None:
    place = Place("/x/e.sock", "/x/tmp", "/x/cwd", "/cache")
    waiting = Launch(("python", "file", "--wait", place.orders), {"A": "1"}, place.cwd)
    spare = Spare(fake.HOME, Preparation(waiting, "waiting", frozenset({"LATE"})), place)
    assert spare.serves(Launch(argv, env, place.cwd)) is serves
    late = Preparation(dataclasses.replace(waiting, env={"A": "1", "LATE": "1"}), "waiting", frozenset({"LATE"}))
    assert not Spare(fake.HOME, late, place).serves(Launch(argv, {"A": "1"}, place.cwd))  # it cannot be unset
