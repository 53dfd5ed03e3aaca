"""run() as a scope: output as lines, the end as a value, and nobody left however it ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from hyperllamad.engines.base import Host, Launch, Place
from hyperllamad.supervision import orphans, place, procfs
from hyperllamad.supervision.child import Child, Exit
from hyperllamad.supervision.lines import LONGEST
from tests.supervision.processes import alive, descriptors, wait_for

FAKE = str(Path(__file__).parent.parent / "fake_engine.py")


@pytest.fixture
def where(runtime: Path) -> Place:
    return place.make(runtime, runtime / "cache", Host())


class Told:
    """What a child said, with events for those who wait for it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.started = anyio.Event()
        self._awaited: dict[str, anyio.Event] = {}

    def line(self, text: str) -> None:
        self.lines.append(text)
        if text in self._awaited:
            self._awaited[text].set()

    async def wait(self, text: str) -> None:
        if text not in self.lines:
            await self._awaited.setdefault(text, anyio.Event()).wait()


def child(where: Place, *argv: str, env: dict[str, str] | None = None) -> tuple[Child, Told]:
    told = Told()
    launch = Launch(argv, env or {}, where.cwd)
    return Child(launch, where, on_line=told.line, on_start=told.started.set), told


def fake(where: Place, *vices: str) -> tuple[Child, Told]:
    return child(where, sys.executable, "-I", "-S", FAKE, "--socket", where.socket, *vices)


@asynccontextmanager
async def running(one: Child) -> AsyncIterator[Callable[[], Exit]]:
    """The child runs beside the block, which must end it; afterwards the result can be asked for."""
    ended: list[Exit] = []

    async def run() -> None:
        ended.append(await one.run())

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            yield lambda: ended[0]


async def test_output_and_exit_come_back(where: Place) -> None:
    one, told = child(where, "sh", "-c", "echo out; echo err >&2; printf 'no end'; exit 3")
    assert await one.run() == Exit(3)
    assert told.lines == ["out", "err", "no end"]
    assert told.started.is_set()


async def test_output_of_the_last_moment_is_not_lost(where: Place) -> None:
    """60 kB in the pipe at the moment of death, the reason last."""
    one, told = child(
        where, "sh", "-c", "i=0; while [ $i -lt 1000 ]; do echo $i: " + "x" * 50 + "; i=$((i+1)); done; kill -9 $$"
    )
    assert await one.run() == Exit(-signal.SIGKILL)
    assert len(told.lines) == 1000
    assert told.lines[-1].startswith("999:")


async def test_the_environment_is_small_and_names_the_place(where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "1")
    monkeypatch.setenv("LANG", "C.UTF-8")
    one, told = child(where, "env", env={"OWN": "2", "LANG": "de"})
    await one.run()
    seen = dict(line.split("=", 1) for line in told.lines)
    assert "SECRET_OF_THE_DAEMON" not in seen
    assert (seen["OWN"], seen["LANG"], seen["TMPDIR"]) == ("2", "de", where.tmp)
    assert seen[place.MARK] == str(place.directory(where))
    assert seen["PATH"] == os.environ["PATH"]


async def test_a_program_that_cannot_be_started_is_no_exit(where: Place) -> None:
    one, told = child(where, "/nonexistent/engine")
    ended = await one.run()
    assert (ended.spawn_error, ended.transient) == (2, False)
    assert not told.started.is_set()


async def test_a_guard_that_cannot_be_started_may_be_tried_again(where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", full)
    ended = await child(where, "true")[0].run()
    assert (ended.spawn_error, ended.transient) == (11, True)


async def test_a_guard_that_cannot_be_watched_is_ended(where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptors ran out behind its start: nobody would end the engine, which may outlive the daemon here."""

    def full(_: int) -> int:
        raise OSError(24, "Too many open files")

    told = Told()
    launch = Launch(("sleep", "600"), {}, where.cwd)
    one = Child(launch, where, on_line=told.line, on_start=told.started.set, patience=60.0)
    monkeypatch.setattr(os, "pidfd_open", full)
    with anyio.fail_after(10):
        ended = await one.run()
    assert (ended.spawn_error, ended.transient) == (24, True)
    assert one._popen is not None
    assert not alive(one._popen.pid)
    mark = f"{place.MARK}={place.directory(where)}".encode()
    assert not [each.pid for each in procfs.processes() if mark in procfs.environment(each.pid)]


async def test_a_ctrl_c_in_the_terminal_reaches_neither_guard_nor_engine(where: Place) -> None:
    one, told = fake(where)
    async with running(one):
        await told.wait("ready")
        assert one.identity is not None
        assert len({os.getsid(0), os.getsid(one.guard), os.getsid(one.identity.pid)}) == 3
        one.kill()


async def test_terminate_ends_it_gently(where: Place) -> None:
    one, told = fake(where)
    async with running(one) as ended:
        await told.wait("ready")
        one.terminate()
    assert ended() == Exit(-signal.SIGTERM)


async def test_terminate_before_the_start_is_remembered(where: Place) -> None:
    one, _ = child(where, "sleep", "600")
    one.terminate()
    with anyio.fail_after(10):
        assert await one.run() == Exit(-signal.SIGTERM)


async def test_kill_ends_one_that_ignores_everything(where: Place) -> None:
    one, told = fake(where, "--ignore-term", "--fork", "--worker")
    async with running(one) as ended:
        await told.wait("ready")
        everybody = procfs.descendants(one.guard, procfs.processes())
        assert len(everybody) == 3
        one.terminate()
        one.kill()
    assert ended() == Exit(-signal.SIGKILL)
    assert not any(alive(pid) for pid in everybody)


async def test_a_stopped_guard_is_no_refuge(where: Place) -> None:
    one, told = fake(where, "--fork")
    async with running(one) as ended:
        await told.wait("ready")
        os.kill(one.guard, signal.SIGSTOP)
        one.terminate()
    assert ended() == Exit(-signal.SIGTERM)


async def test_a_crash_of_the_main_process_takes_all_with_it(where: Place) -> None:
    one, told = fake(where, "--fork", "--worker")
    async with running(one) as ended:
        await told.wait("ready")
        everybody = procfs.descendants(one.guard, procfs.processes())
        assert one.identity is not None
        os.kill(one.identity.pid, signal.SIGSEGV)
    assert ended() == Exit(-signal.SIGSEGV)
    assert len(everybody) == 3
    assert not any(alive(pid) for pid in everybody)


async def test_the_death_of_a_grandchild_is_the_engines_own_business(where: Place) -> None:
    one, told = fake(where, "--worker", "--fork")
    async with running(one) as ended:
        await told.wait("ready")
        assert one.identity is not None
        (*grandchildren,) = set(procfs.descendants(one.guard, procfs.processes())) - {one.identity.pid}
        for pid in grandchildren:
            os.kill(pid, signal.SIGKILL)
        await wait_for(lambda: not any(alive(pid) for pid in grandchildren))
        assert alive(one.identity.pid)
        one.terminate()
    assert ended() == Exit(-signal.SIGTERM)


@pytest.mark.parametrize("when", ["at once", "started", "ready"])
async def test_cancellation_kills_and_waits(where: Place, when: str) -> None:
    one, told = fake(where, "--ignore-term", "--fork")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(one.run)
            if when == "started":
                await told.started.wait()
            elif when == "ready":
                await told.wait("ready")
            else:
                await wait_for(lambda: one.guard)
            group.cancel_scope.cancel()
    # Nobody is left the moment the scope ends: not later, not soon.
    assert not alive(one.guard)
    assert one.identity is None or not alive(one.identity.pid)


async def test_the_daemon_finishes_what_a_killed_guard_cannot(where: Place) -> None:
    orphans.become_subreaper()
    one, told = fake(where, "--ignore-term", "--fork", "--worker")
    async with running(one) as ended:
        await told.wait("ready")
        everybody = procfs.descendants(one.guard, procfs.processes())
        os.kill(one.guard, signal.SIGKILL)
    assert ended() == Exit(-signal.SIGKILL, guard_lost=True)
    assert len(everybody) == 3
    assert [pid for pid in everybody if procfs.process(pid)] == [], "alive, or a zombie of ours"


async def test_a_killed_guard_is_no_trouble_for_one_that_is_no_subreaper(where: Place) -> None:
    one, told = fake(where, "--ignore-term", "--fork")
    async with running(one) as ended:
        await told.wait("ready")
        everybody = procfs.descendants(one.guard, procfs.processes())
        os.kill(one.guard, signal.SIGKILL)
    assert ended().guard_lost
    assert not any(alive(pid) for pid in everybody)


async def test_a_flood_of_output_is_bounded(where: Place) -> None:
    """40 MiB, one line of 10 MiB in it: what is held at any time stays small, and other tasks get their turn."""
    longest = 0
    turns = 0
    over = anyio.Event()

    def line(text: str) -> None:
        nonlocal longest
        longest = max(longest, len(text))
        if text == "flood over":
            over.set()

    one = Child(
        Launch((sys.executable, "-I", "-S", FAKE, "--socket", where.socket, "--log-flood", "40"), {}, where.cwd),
        where,
        on_line=line,
    )
    async with running(one):
        while not over.is_set():
            await anyio.sleep(0)
            turns += 1
        one.kill()
    assert LONGEST <= longest < LONGEST + 10
    assert turns > 100


async def test_descriptors_are_given_back(where: Place) -> None:
    before = descriptors()
    for _ in range(3):
        await child(where, "true")[0].run()
        await child(where, "/nonexistent")[0].run()
    assert descriptors() == before


async def test_a_tree_that_is_left_goes_on_and_is_taken_over_without_losing_a_line(where: Place) -> None:
    """Left for a while, so that it prints while nobody reads."""
    count = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.001; done"
    lines: list[str] = []
    launch = Launch(("sh", "-c", count), {}, where.cwd)
    first = Child(launch, where, on_line=lines.append, patience=20)
    async with running(first) as ended:
        await wait_for(lambda: len(lines) > 10)
        assert first.can_be_left
        first.leave()
    assert ended() == Exit(0, left=True)
    leader = place.read(place.directory(where))
    assert leader is not None
    assert leader.guard is not None
    assert leader.engine == first.identity
    read, position = len(lines), Path(f"/proc/{leader.engine.pid}/io")
    written = position.read_text()
    await wait_for(lambda: position.read_text() != written)
    second = Child(launch, where, on_line=lines.append, patience=20, found=leader)
    async with running(second) as ended:
        await wait_for(lambda: len(lines) > read + 20)
        assert second.identity == first.identity
        assert set(second.members()) >= {leader.engine.pid}
        second.kill()
    assert ended() == Exit(-signal.SIGKILL)
    assert not alive(leader.engine.pid)
    assert first._popen is not None
    assert first._popen.wait() == 0  # in the daemon's next life the guard is nobody's child any more
    assert [int(line) for line in lines] == list(range(len(lines)))


async def test_one_that_cannot_be_taken_over_is_ended(where: Place) -> None:
    launch = Launch(("sleep", "600"), {}, where.cwd)
    first = Child(launch, where, on_line=lambda _: None, patience=20)
    async with running(first):
        await wait_for(lambda: first.can_be_left)
        first.leave()
    leader = place.read(place.directory(where))
    assert leader is not None
    assert leader.engine is not None
    place.door(where).unlink()
    ended = await Child(launch, where, on_line=lambda _: None, patience=20, found=leader).run()
    assert ended == Exit(-signal.SIGKILL, guard_lost=True)
    assert not alive(leader.engine.pid)
    assert first._popen is not None
    first._popen.wait()
