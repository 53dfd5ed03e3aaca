"""Whatever is killed, nobody of ours stays for good, and no stranger is ever touched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from hyperllamad.engines.base import Host, Place
from hyperllamad.supervision import orphans, place, procfs
from hyperllamad.supervision.place import Leader
from hyperllamad.supervision.procfs import Identity
from tests.supervision.processes import alive, wait_for, wait_for_blocking

ROOT = Path(__file__).parent.parent.parent
VICES = ("--ignore-term", "--fork", "--worker")


class Daemon:
    """tests/supervision/daemon.py with its engine up; `everybody` are the guard and the engine's three processes."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        argv = [sys.executable, "-m", "tests.supervision.daemon", str(runtime), *VICES]
        self.process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert "ready\n" in iter(self.process.stdout.readline, "")
        self.everybody = procfs.descendants(self.process.pid, procfs.processes())
        self.guard = self.everybody[0]

    @property
    def survivors(self) -> list[int]:
        return [pid for pid in self.everybody if alive(pid)]

    def kill(self, *, guard_too: bool) -> None:
        if guard_too:
            self.process.send_signal(signal.SIGSTOP)  # so that it cannot act between the two
            os.kill(self.guard, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for pid in self.survivors:
            with contextlib.suppress(ProcessLookupError):  # its guard is ending it at the same time
                os.kill(pid, signal.SIGKILL)
        wait_for_blocking(lambda: not self.survivors)


@pytest.fixture
def daemon(runtime: Path) -> Iterator[Daemon]:
    one = Daemon(runtime)
    yield one
    one.close()


@pytest.fixture
def where(runtime: Path) -> Place:
    return place.make(runtime, runtime / "cache", Host())


@pytest.fixture
def sleeper() -> Iterator[Any]:
    """Start a process that sleeps in a session of its own."""
    made: list[subprocess.Popen[bytes]] = []

    def start(cwd: Path | str, **environment: str) -> subprocess.Popen[bytes]:
        known = {"SLEEPER": "1", **environment}
        started = subprocess.Popen(["sleep", "600"], cwd=cwd, env=known, start_new_session=True)
        made.append(started)
        # Popen comes back when the old program is gone; for a moment the new one has no environment that can be read.
        wait_for_blocking(lambda: b"SLEEPER=1" in procfs.environment(started.pid))
        return started

    yield start
    for one in made:
        one.kill()
        one.wait()


def write_leader(where: Place, **fields: Any) -> None:
    """The leader file of a daemon that is no more."""
    leader = Leader(procfs.boot_id(), Identity(1 << 22, 1))
    content = msgspec.structs.replace(leader, **fields)
    (place.directory(where) / "leader").write_bytes(msgspec.json.encode(content))


def identity(process: subprocess.Popen[bytes]) -> Identity:
    found = procfs.process(process.pid)
    assert found is not None
    return found.identity


async def test_a_killed_daemon_leaves_nobody_without_being_started_again(daemon: Daemon) -> None:
    assert len(daemon.everybody) == 4
    daemon.kill(guard_too=False)
    await wait_for(lambda: not daemon.survivors)


async def test_a_killed_daemon_leaves_nobody_though_the_guard_was_stopped(daemon: Daemon) -> None:
    os.kill(daemon.guard, signal.SIGSTOP)
    daemon.kill(guard_too=False)
    await wait_for(lambda: not daemon.survivors)


async def test_a_killed_daemon_and_guard_leave_nobody_once_it_starts_again(daemon: Daemon) -> None:
    daemon.kill(guard_too=True)
    await wait_for(lambda: len(daemon.survivors) == 2)  # guard and main process are gone, the other two hold on
    assert await orphans.sweep(daemon.runtime) == 2
    assert not daemon.survivors
    assert list(place.root(daemon.runtime).iterdir()) == []


async def test_the_next_daemon_sweeps_at_start(daemon: Daemon) -> None:
    daemon.kill(guard_too=True)
    await wait_for(lambda: len(daemon.survivors) == 2)
    second = Daemon(daemon.runtime)
    assert not daemon.survivors
    second.close()


async def test_another_daemon_at_work_is_left_alone(daemon: Daemon) -> None:
    assert await orphans.sweep(daemon.runtime) == 0
    assert len(daemon.survivors) == 4
    assert len(list(place.root(daemon.runtime).iterdir())) == 1


async def test_a_stale_directory_is_removed(where: Place, runtime: Path) -> None:
    write_leader(where, engine=Identity(1 << 22, 1))
    (Path(where.tmp) / "left").write_text("over")
    other = place.make(runtime, runtime / "cache", Host())
    (place.directory(other) / "leader").write_text("half a le")
    (place.root(runtime) / "empty").mkdir()
    assert await orphans.sweep(runtime) == 0
    assert list(place.root(runtime).iterdir()) == []


async def test_no_directory_is_no_trouble(runtime: Path) -> None:
    assert await orphans.sweep(runtime / "never made") == 0


async def test_session_and_working_directory_together_are_proof(where: Place, runtime: Path, sleeper: Any) -> None:
    left = sleeper(where.cwd)
    write_leader(where, engine=identity(left))
    assert await orphans.sweep(runtime) == 1
    assert not alive(left.pid)


async def test_the_mark_in_the_environment_is_proof(where: Place, runtime: Path, sleeper: Any) -> None:
    left = sleeper("/", **{place.MARK: str(place.directory(where))})
    write_leader(where)
    assert await orphans.sweep(runtime) == 1
    assert not alive(left.pid)


async def test_what_has_a_name_goes_with_those_whose_guard_is_gone(where: Place, runtime: Path) -> None:
    source = """
import multiprocessing.shared_memory, time
one = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
print(one.name, flush=True)
time.sleep(600)
"""
    environment = {place.MARK: str(place.directory(where))}
    argv = [sys.executable, "-I", "-c", source]
    write_leader(where)
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as left:
        assert left.stdout is not None
        named = Path("/dev/shm", left.stdout.readline().strip())
        assert named.exists()
        assert await orphans.sweep(runtime) == 2
        assert not named.exists()


async def test_one_that_is_still_ending_is_waited_for(
    where: Place, monkeypatch: pytest.MonkeyPatch, sleeper: Any
) -> None:
    """In its last moments a process has no environment any more, and gives back what it holds only then."""
    left = sleeper("/", **{place.MARK: str(place.directory(where))})
    environment, looks = procfs.environment, 0
    over = anyio.Event()

    def ending(pid: int) -> list[bytes]:
        nonlocal looks
        looks += pid == left.pid
        return environment(pid) if looks < 2 else []

    async def end() -> None:
        assert await orphans.end(place.directory(where), None) == 1
        over.set()

    monkeypatch.setattr(procfs, "environment", ending)
    monkeypatch.setattr(orphans, "_signal", lambda *_: None)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(end)
            await wait_for(lambda: looks > 3)
            assert not over.is_set()
            left.kill()
    assert not alive(left.pid)


async def test_one_whose_main_thread_alone_has_ended_is_waited_for(where: Place) -> None:
    """It looks like a zombie, and the rest of it goes on for ever."""
    source = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start()"
    source += "; print('up', flush=True); ctypes.CDLL(None).pthread_exit(None)"
    mark = {place.MARK: str(place.directory(where))}
    left = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", source], env=mark, stdout=subprocess.PIPE, start_new_session=True
    )
    assert left.stdout is not None
    assert left.stdout.readline() == b"up\n"
    left.stdout.close()
    leader = Leader(procfs.boot_id(), Identity(1 << 22, 1), engine=identity(left))
    wait_for_blocking(lambda: not alive(left.pid))
    try:
        with anyio.fail_after(10):
            await orphans.end(place.directory(where), leader)
        assert procfs.process(left.pid) is None
    finally:
        left.kill()
        left.wait()


@pytest.mark.parametrize("stranger", ["session only", "directory only", "later process", "earlier boot", "other mark"])
async def test_a_stranger_is_never_touched(where: Place, runtime: Path, sleeper: Any, stranger: str) -> None:
    cwd = "/" if stranger in {"session only", "other mark"} else where.cwd
    mark = {place.MARK: str(place.directory(where)) + "0"} if stranger == "other mark" else {}
    other = sleeper(cwd, **mark)
    engine = identity(other)
    if stranger == "directory only":
        engine = Identity(1 << 22, engine.start)
    elif stranger == "later process":
        engine = Identity(engine.pid, engine.start - 1)
    boot = "b00t" if stranger == "earlier boot" else procfs.boot_id()
    write_leader(where, engine=engine, boot=boot)
    assert await orphans.sweep(runtime) == 0
    assert other.poll() is None


async def test_another_users_process_is_not_ours(where: Place, runtime: Path, sleeper: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start another user's process")
    other = sleeper("/", **{place.MARK: str(place.directory(where))})
    theirs = subprocess.Popen(
        ["sleep", "600"], env={place.MARK: str(place.directory(where))}, user=65534, group=65534, extra_groups=[]
    )
    try:
        assert await orphans.sweep(runtime) == 1
        assert not alive(other.pid)
        assert theirs.poll() is None
    finally:
        theirs.kill()
        theirs.wait()


async def test_what_does_not_end_is_left_with_a_warning(
    where: Place, runtime: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sleeper: Any
) -> None:
    """A process in the driver outlives SIGKILL; here one outlives it because it is never sent."""
    monkeypatch.setattr(orphans, "SWEEP_PATIENCE", 0.05)
    monkeypatch.setattr(orphans, "_signal", lambda *_: None)
    sleeper("/", **{place.MARK: str(place.directory(where))})
    write_leader(where)
    await orphans.sweep(runtime)
    assert "do not end" in caplog.text
    assert place.directory(where).exists()
