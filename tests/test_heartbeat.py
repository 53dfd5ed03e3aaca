"""What systemd hears: pings while decisions are made and no longer, more time where needed, a line that is true."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from hyperllamad import heartbeat
from hyperllamad.core.instance import State
from hyperllamad.notifier import Notifier
from hyperllamad.supervision.alarm import Alarm
from hyperllamad.supervision.supervisor import Supervisor
from tests.supervision import fake
from tests.supervision.processes import wait_for


class Systemd:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self._told: list[str] = []

    @property
    def told(self) -> list[str]:
        """Everything so far."""
        while True:
            try:
                self._told.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return self._told

    def count(self, text: str) -> int:
        return sum(line.startswith(text) for line in self.told)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    manager = Systemd(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "60000")
    yield manager
    manager.socket.close()


@pytest.fixture
def notifier(systemd: Systemd) -> Iterator[Notifier]:
    made = Notifier()
    yield made
    assert made._systemd is not None
    made._systemd.socket.close()


@pytest.fixture
async def supervisor(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    fake.install(monkeypatch)
    async with fake.supervised(runtime) as made:
        yield made


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("r")


async def test_the_watchdog_is_fed_three_times_as_often_as_it_wants(
    systemd: Systemd, notifier: Notifier, supervisor: Supervisor
) -> None:
    assert notifier.watchdog == 0.06
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heartbeat.beat, notifier, supervisor)
        await wait_for(lambda: systemd.count("WATCHDOG=1") >= 5)
        tasks.cancel_scope.cancel()


async def test_a_clock_that_is_stuck_silences_it(
    systemd: Systemd, notifier: Notifier, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop runs all the while: only decisions are not made any more."""
    stuck = anyio.Event()
    keep_time = Alarm.run

    async def until_stuck(self: Alarm) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_time, self)
            await stuck.wait()
            tasks.cancel_scope.cancel()
        await anyio.sleep_forever()

    monkeypatch.setattr(Alarm, "run", until_stuck)
    fake.install(monkeypatch)
    async with fake.supervised(runtime) as supervisor, anyio.create_task_group() as tasks:
        tasks.start_soon(heartbeat.beat, notifier, supervisor)
        await wait_for(lambda: systemd.count("WATCHDOG=1") >= 2)
        stuck.set()
        await anyio.sleep(notifier.watchdog)  # one may be on its way
        before = systemd.count("WATCHDOG=1")
        await anyio.sleep(3 * notifier.watchdog)  # a stretch in which nine would have come
        assert systemd.count("WATCHDOG=1") == before
        tasks.cancel_scope.cancel()


async def test_a_pulse_does_not_need_anything_else_to_happen(supervisor: Supervisor) -> None:
    with anyio.fail_after(5):
        for _ in range(100):
            await supervisor.pulse()


async def test_more_time_is_asked_for_while_it_lasts(
    systemd: Systemd, notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SAID_EVERY", 0.01)
    async with heartbeat.patience(notifier):
        await wait_for(lambda: systemd.count("EXTEND_TIMEOUT_USEC=15000000") >= 3)
    before = systemd.count("EXTEND")
    await anyio.sleep(0.1)  # a stretch in which ten would have come
    assert systemd.count("EXTEND") == before


async def test_the_line_follows_the_models(
    systemd: Systemd, notifier: Notifier, supervisor: Supervisor, runtime: Path
) -> None:
    def now() -> str:
        return next(line for line in reversed(systemd.told) if line.startswith("STATUS="))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heartbeat.tell_status, notifier, supervisor, lambda: "serving")
        await wait_for(lambda: systemd.count("STATUS=serving: no model loaded"))
        for name in ("a", "b"):
            lease = supervisor.lease(fake.model(runtime, name))
            await lease.granted()
        await wait_for(lambda: now() == "STATUS=serving: 2 models ready")
        supervisor.unload(lease.model, cut=True)
        await wait_for(lambda: now() == "STATUS=serving: 1 model ready")
        assert "STATUS=serving: 1 model starting" in systemd.told
        tasks.cancel_scope.cancel()


def test_the_line_in_words() -> None:
    census = Counter({State.FAILED: 1, State.READY: 2, State.STARTING: 1, State.GONE: 0})
    assert heartbeat.sentence("serving x", census) == "serving x: 1 model starting, 2 ready, 1 failed"
    assert heartbeat.sentence("stopping", Counter()) == "stopping: no model loaded"


async def test_nobody_is_told_where_nobody_asked(supervisor: Supervisor) -> None:
    silent = Notifier({"WATCHDOG_USEC": "60000"})
    assert not silent.heard
    with anyio.fail_after(5):
        await heartbeat.beat(silent, supervisor)
        await heartbeat.tell_status(silent, supervisor, lambda: "serving")
        async with heartbeat.patience(silent):
            pass


def test_a_watchdog_for_another_process_is_not_ours(systemd: Systemd) -> None:
    for environ, seconds in (
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ):
        made = Notifier({"NOTIFY_SOCKET": os.environ["NOTIFY_SOCKET"], **environ})
        assert made.watchdog == seconds
        assert made._systemd is not None
        made._systemd.socket.close()
