"""Whom and what the guard ends: everybody below it, and what they leave that has a name."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.supervision import procfs
from hyperllamad.supervision.guard import is_tracker
from tests.supervision.guarding import TREE, python
from tests.supervision.processes import alive, wait_for_blocking

CAP_KILL = 5  # linux/capability.h


@pytest.mark.parametrize("way", ["main exits", "main killed", "kill", "daemon gone"])
def test_nobody_is_left(guarded: Any, way: str) -> None:
    end = "sys.stdin.close(); import select; select.select([], [], [], 600)" if way != "main exits" else "sys.exit(3)"
    guard = guarded(*python(f"{TREE}\n{end}"))
    main = guard.message()["pid"]
    tree = guard.tree(5)
    assert len(tree) == 5
    if way == "main killed":
        os.kill(main, signal.SIGKILL)
    elif way == "kill":
        guard.control.send(b"K")
    if way == "daemon gone":
        guard.control.shutdown(socket.SHUT_RDWR)
        guard.process.wait(10)
    else:
        assert guard.message() == {"exit": 3 if way == "main exits" else -signal.SIGKILL}
    assert [pid for pid in tree if alive(pid)] == [], "reported before everybody was gone"


# Shared memory and a semaphore with names, made by a child of the engine that another child uses, too.
NAMED = """
import multiprocessing, os, sys, time
from multiprocessing import shared_memory
def child(say):
    one = shared_memory.SharedMemory(create=True, size=4096)
    two = multiprocessing.get_context("spawn").Semaphore()
    say.send((os.getpid(), one.name, two._semlock.name))
    time.sleep(600)
if __name__ == "__main__":
    mine, theirs = multiprocessing.Pipe()
    multiprocessing.get_context("fork").Process(target=child, args=(theirs,)).start()
    print(*mine.recv(), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("way", ["main killed", "child killed", "kill", "tracker stopped"])
def test_what_has_a_name_does_not_stay(guarded: Any, tmp_path: Path, way: str) -> None:
    program = tmp_path / "engine.py"
    program.write_text(NAMED)
    guard = guarded(sys.executable, str(program))
    main = guard.message()["pid"]
    child, shared, semaphore = guard.process.stdout.readline().split()
    named = [Path("/dev/shm", shared), Path("/dev/shm", f"sem.{semaphore.removeprefix('/')}")]
    assert all(one.exists() for one in named)
    (tracker,) = (pid for pid in procfs.descendants(guard.process.pid, procfs.processes()) if is_tracker(pid))
    if way == "tracker stopped":
        os.kill(tracker, signal.SIGSTOP)
    if way in {"main killed", "child killed"}:
        os.kill(main if way == "main killed" else int(child), signal.SIGKILL)
    if way != "main killed":
        guard.control.send(b"K")
    assert guard.message() == {"exit": -signal.SIGKILL}
    assert [one for one in named if one.exists()] == []
    assert not alive(tracker)


def test_a_tracker_that_does_not_end_is_ended(guarded: Any) -> None:
    """One whose pipe somebody else holds open; here it is none, and only called so."""
    guard = guarded(
        *python("import time; print('up', flush=True); time.sleep(600)", "multiprocessing.resource_tracker")
    )
    main = guard.message()["pid"]
    guard.tree(0)
    guard.control.send(b"K")
    assert guard.message() == {"exit": -signal.SIGKILL}
    assert not alive(main)


def test_one_who_loses_his_parent_is_reaped_while_the_engine_runs(guarded: Any) -> None:
    text = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.05)
    os._exit(0)
os.wait()
print("up", flush=True)
time.sleep(600)
"""
    guard = guarded(*python(text))
    main = guard.message()["pid"]
    guard.tree(0)
    wait_for_blocking(lambda: procfs.descendants(guard.process.pid, procfs.processes()) == [main])


def test_the_engine_dies_with_its_guard(guarded: Any) -> None:
    guard = guarded("sleep", "600")
    main = guard.message()["pid"]
    guard.process.kill()
    wait_for_blocking(lambda: not alive(main))


def test_one_that_became_another_user_is_waited_for(guarded: Any) -> None:
    """It may not be signalled; as long as it is there the guard is there, and says so once it has gone."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    text = """
import os, time
if os.fork() == 0:
    os.setresuid(65534, 65534, 65534)
    print(os.getpid(), flush=True)
time.sleep(600)
"""
    guard = guarded(*python(text), without=CAP_KILL)
    assert guard.message()["pid"]
    other = int(guard.process.stdout.readline())
    guard.control.send(b"K")
    wait_for_blocking(lambda: (found := procfs.process(other)) and found.parent == guard.process.pid)
    said = select.select([guard.control], [], [], 6)[0]  # longer than it tries anything
    assert said == [], "it says that nobody is left, or has ended itself"
    assert alive(other)
    os.kill(other, signal.SIGKILL)
    assert guard.message() == {"exit": -signal.SIGKILL}
