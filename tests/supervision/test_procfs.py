"""What /proc says, of processes that are there, that end, and that call themselves strangely."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hyperllamad.supervision import procfs
from hyperllamad.supervision.procfs import Process
from tests.supervision.processes import wait_for_blocking

NAME = "prctl(15, b') R 1 (', 0, 0, 0)"  # PR_SET_NAME


def test_a_strange_name_does_not_confuse() -> None:
    text = f"import ctypes, sys; ctypes.CDLL(None).{NAME}; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert ") R 1 (" in Path(f"/proc/{child.pid}/comm").read_text()
        found = procfs.process(child.pid)
        assert found is not None
        assert (found.parent, found.session, found.zombie) == (os.getpid(), os.getsid(0), False)
        assert found.identity.alive
        child.communicate()


def test_a_zombie_is_not_alive_and_then_there_is_nothing() -> None:
    child = subprocess.Popen(["true"])
    found = procfs.process(child.pid)
    assert found is not None
    wait_for_blocking(lambda: not found.identity.alive)
    zombie = procfs.process(child.pid)
    assert zombie is not None
    assert zombie.zombie
    assert procfs.environment(child.pid) in ([], [b""])
    assert procfs.working_directory(child.pid) is None
    assert procfs.resident([child.pid]) == 0
    child.wait()
    assert procfs.process(child.pid) is None
    assert not procfs.is_ours(child.pid)


def test_descendants_are_found_at_any_depth() -> None:
    family = [(2, 1), (3, 2), (9, 3), (4, 2), (5, 1), (8, 7)]
    everybody = [Process(pid, parent, 0, 0, zombie=False) for pid, parent in family]
    assert sorted(procfs.descendants(2, everybody)) == [3, 4, 9]
    assert procfs.descendants(9, everybody) == []


def test_resident_sums_what_is_private_and_counts_what_is_shared_once() -> None:
    me = procfs.resident([os.getpid()])
    assert 5 << 20 < me < 2 << 30
    fields = procfs._memory_fields(os.getpid())
    assert me == fields[b"RssAnon"] + fields[b"RssFile"] + fields[b"RssShmem"]
    assert procfs.resident([os.getpid()] * 2) == me + fields[b"RssAnon"]
