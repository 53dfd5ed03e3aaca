"""Suspend and resume with real children, on a real bus: who sleeps, is unloaded or stays, and who is back after."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from hyperllamad import logind, suspend
from hyperllamad.core.gpu_health import Verdict
from hyperllamad.core.instance import State
from hyperllamad.supervision.supervisor import Supervisor
from tests import stand_in_logind
from tests.stand_in_logind import Logind
from tests.supervision import fake
from tests.supervision.processes import wait_for

pytestmark = pytest.mark.skipif(stand_in_logind.DAEMON is None, reason="needs dbus-daemon")


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stand_in_logind.system_bus(tmp_path_factory.mktemp("b")) as address:
        yield address


class Gpus:
    """Back whenever they are asked for, once `ready` is set."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.ready.set()
        self.asked = 0

    async def recover(self, within: float) -> None:
        self.asked += 1
        await self.ready.wait()


class House:
    """A supervisor whose models lie on a GPU, and the machine around it."""

    def __init__(self, supervisor: Supervisor, manager: Logind, gpus: Gpus, runtime: Path) -> None:
        self.supervisor, self.manager, self.gpus, self.runtime = supervisor, manager, gpus, runtime

    async def load(self, name: str, *vices: str) -> None:
        lease = self.supervisor.lease(fake.model(self.runtime, name, *vices))
        await lease.granted()
        lease.release()

    def states(self) -> dict[str, str]:
        return {row.name.partition(":")[0]: str(row.state) for row in self.supervisor.rows()}

    async def sleep(self) -> None:
        """The machine is about to; until it need not wait any more."""
        await wait_for(lambda: self.manager.held() == 1)
        self.manager.sleeps(is_about_to=True)
        await wait_for(lambda: self.manager.held() == 0)

    def wake(self) -> None:
        self.manager.sleeps(is_about_to=False)


@asynccontextmanager
async def house(
    runtime: Path, bus: str, *, wanted: bool = True, delay: float = 5.0, kept: bool = False, **more: Any
) -> AsyncIterator[House]:
    gpus, parameters = Gpus(), runtime / "params"
    parameters.write_text(f"EnableMSI: 1\nPreserveVideoMemoryAllocations: {int(kept)}\n")
    more = {"home": fake.ON_GPU, "verdict": lambda: Verdict("cuda"), **more}
    with stand_in_logind.logind(bus, delay=delay) as manager:
        async with fake.supervised(runtime, **more) as supervisor, anyio.create_task_group() as tasks:
            connect = partial(logind.connected, bus)
            follow = partial(suspend.follow, supervisor, gpus, lambda: wanted, connect=connect, parameters=parameters)
            tasks.start_soon(follow)
            yield House(supervisor, manager, gpus, runtime)
            tasks.cancel_scope.cancel()


async def test_models_on_gpus_sleep_or_are_unloaded_and_are_back_afterwards(runtime: Path, bus: str) -> None:
    async with house(runtime, bus) as all_:
        await all_.load("sleeper", "--sleeps")
        await all_.load("stayer")
        await all_.sleep()
        assert all_.states() == {"sleeper": "asleep"}
        assert all_.supervisor.interruptions.paused
        why = {
            event.name: event.record.why for event in all_.supervisor.events.last(100) if "sleep" in event.record.why
        }
        assert why == {"sleeper:latest": suspend.WHY, "stayer:latest": suspend.WHY}
        all_.wake()
        await wait_for(lambda: all_.states() == {"sleeper": "ready", "stayer": "ready"})
        assert all_.gpus.asked == 1
        await wait_for(lambda: all_.manager.held() == 1)  # for the next time


async def test_a_daemon_that_ends_meanwhile_brings_nobody_to_rest(runtime: Path) -> None:
    async with fake.supervised(runtime, home=fake.ON_GPU, verdict=lambda: Verdict("cuda")) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m"))
        await lease.granted()
        rested = anyio.Event()

        async def rest() -> None:
            await suspend.Sleep(supervisor, Gpus(), runtime / "none").before(1000.0)
            rested.set()

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(rest)
                await wait_for(lambda: supervisor.interruptions.paused)
                await anyio.wait_all_tasks_blocked()
                assert not rested.is_set(), "a request is open"
                supervisor._performer.overview.close()
        lease.release()


async def test_requests_wait_while_the_machine_sleeps(runtime: Path, bus: str) -> None:
    async with house(runtime, bus) as all_:
        await all_.load("m", "--sleeps")
        all_.gpus.ready = anyio.Event()
        await all_.sleep()
        lease = all_.supervisor.lease(fake.model(runtime, "m", "--sleeps"))
        all_.wake()
        await wait_for(lambda: all_.gpus.asked == 1)
        assert all_.states() == {"m": "asleep"}, "nobody is woken before the GPU answers"
        all_.gpus.ready.set()
        await lease.granted()
        lease.release()


async def test_what_lies_in_the_machines_memory_stays_and_streams_go_on(runtime: Path, bus: str) -> None:
    async with house(runtime, bus, home=fake.HOME, verdict=None) as all_:
        lease = all_.supervisor.lease(fake.model(runtime, "m"))
        upstream = await lease.granted()
        await all_.sleep()
        assert all_.states() == {"m": "ready"}
        assert not upstream.explain()
        all_.wake()
        lease.release()
        await wait_for(lambda: not all_.supervisor.interruptions.paused)


async def test_what_the_driver_saves_stays(runtime: Path, bus: str) -> None:
    async with house(runtime, bus, kept=True) as all_:
        await all_.load("m", "--sleeps")
        await all_.sleep()
        assert all_.states() == {"m": "ready"}
        all_.wake()


async def test_who_does_not_come_to_rest_in_time_is_cut_off_and_told_why(runtime: Path, bus: str) -> None:
    async with house(runtime, bus, delay=1.0) as all_:
        lease = all_.supervisor.lease(fake.model(runtime, "m", "--sleeps"))
        upstream = await lease.granted()
        await all_.sleep()
        assert all_.states() == {}
        assert upstream.explain() == suspend.WHY
        assert not upstream.cut_on_purpose, "its answer may go on afterwards"
        lease.release()
        all_.wake()
        await wait_for(lambda: all_.states() == {"m": "ready"})


async def test_who_does_not_answer_afterwards_is_started_anew(runtime: Path, bus: str) -> None:
    async with house(runtime, bus, home=fake.HOME, verdict=None) as all_:
        await all_.load("m")
        (before,) = all_.supervisor.rows()
        await all_.sleep()
        os.kill(before.pid, signal.SIGSTOP)
        all_.wake()
        await wait_for(
            lambda: [(row.state, row.pid != before.pid) for row in all_.supervisor.rows()] == [(State.READY, True)]
        )


async def test_a_second_sleep_before_all_are_awake(runtime: Path, bus: str) -> None:
    async with house(runtime, bus) as all_:
        await all_.load("m", "--sleeps")
        all_.gpus.ready = anyio.Event()
        await all_.sleep()
        all_.wake()
        await wait_for(lambda: all_.gpus.asked == 1)
        await all_.sleep()
        assert all_.supervisor.interruptions.paused
        all_.gpus.ready.set()
        all_.wake()
        await wait_for(lambda: all_.states() == {"m": "ready"})


async def test_one_that_cannot_be_loaded_again_is_told_of(
    runtime: Path, bus: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(runtime, bus) as all_:
        await all_.load("m")
        await all_.sleep()
        (runtime / "m.gguf").unlink()
        with caplog.at_level(logging.ERROR):
            all_.wake()
            await wait_for(lambda: "m:latest is not back after the sleep" in caplog.text)


async def test_nothing_is_done_where_nobody_wants_it(runtime: Path, bus: str) -> None:
    async with house(runtime, bus, wanted=False) as all_:
        await all_.load("m")
        all_.manager.sleeps(is_about_to=True)
        all_.manager.sleeps(is_about_to=False)
        lease = all_.supervisor.lease(fake.model(runtime, "m"))
        await lease.granted()
        lease.release()
        assert (all_.manager.asked, all_.gpus.asked) == ([], 0)


async def test_where_a_lock_is_refused_models_rest_all_the_same(
    runtime: Path, bus: str, caplog: pytest.LogCaptureFixture
) -> None:
    gpus = Gpus()
    with stand_in_logind.logind(bus, refuses=True) as manager:
        async with (
            fake.supervised(runtime, home=fake.ON_GPU, verdict=lambda: Verdict("cuda")) as supervisor,
            anyio.create_task_group() as tasks,
        ):
            connect = partial(logind.connected, bus)
            tasks.start_soon(partial(suspend.follow, supervisor, gpus, lambda: True, connect=connect))
            lease = supervisor.lease(fake.model(runtime, "m"))
            await lease.granted()
            lease.release()
            await wait_for(lambda: "will not wait for models when it goes to sleep: Access denied" in caplog.text)
            manager.sleeps(is_about_to=True)
            await fake.wait_unloaded(supervisor)
            tasks.cancel_scope.cancel()


async def test_without_a_bus_it_is_said_once_and_that_is_all(runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with fake.supervised(runtime) as supervisor:
        with caplog.at_level(logging.INFO), anyio.fail_after(5):
            connect = partial(logind.connected, f"unix:path={runtime}/nowhere")
            await suspend.follow(supervisor, Gpus(), lambda: True, connect=connect)
    assert caplog.text.count("nothing will be heard of suspend and resume: there is no system bus") == 1


async def test_a_bus_that_ends_is_asked_again(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory, gpus = tmp_path_factory.mktemp("b"), Gpus()
    address = f"unix:path={directory / 'bus'}"
    async with fake.supervised(runtime) as supervisor, anyio.create_task_group() as tasks:
        with stand_in_logind.system_bus(directory), stand_in_logind.logind(address) as manager:
            connect = partial(logind.connected, address)
            tasks.start_soon(partial(suspend.follow, supervisor, gpus, lambda: True, connect=connect, again=0.3))
            await wait_for(lambda: manager.held() == 1)
        (directory / "bus").unlink(missing_ok=True)
        with stand_in_logind.system_bus(directory), stand_in_logind.logind(address) as manager:
            await wait_for(lambda: manager.held() == 1)
        tasks.cancel_scope.cancel()
