"""The box asked to end in the middle of a machine: nothing that it started is left, nor a directory in its cache."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemon import eventually
from tests.system.box.shell import ROOT

# In the place of User-Mode Linux: it hears no SIGHUP, and its child has left its session, as a machine's own have.
MACHINE = """#!/bin/sh
trap '' HUP
setsid sleep 1000 &
echo $$ $! >{pids}.fresh
mv {pids}.fresh {pids}
wait
"""
# All of the harness but what it would install, build and boot.  `beside`: from a thread, as beside nspawn.
HARNESS = """
import sys, threading
from pathlib import Path
from tests.system.box import __main__ as box
cache, beside = Path(sys.argv[1]), sys.argv[2] == "beside"
box.uml.CACHE = box.leash.CACHE = cache
box.supplies.install_host_packages = lambda *names: None
box.tree.make = lambda: cache
box.supplies.gather = lambda root, plain: cache / "given"
box.nspawn.possible = lambda: "" if beside else "not here"
box._document = lambda *given: ""
# For ever, but not in one wait: a signal that comes just before a wait begins does not interrupt it.
box._bundled = lambda *given: any(iter(lambda: threading.Event().wait(0.1), True))
sys.argv = ["box", "test"]
sys.exit(box.main())
"""


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """With a disk image that is there already; afterwards nobody is left, whatever the test found."""
    for part in ("given/inside", "given/standin", "given/rpms", "bin"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "root.key").touch()
    (tmp_path / "root.img").touch()
    machine = tmp_path / "bin/linux.uml"
    machine.write_text(MACHINE.format(pids=tmp_path / "pids"))
    machine.chmod(0o755)
    yield tmp_path
    for pid in pids(tmp_path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def pids(cache: Path) -> list[int]:
    """The machine and its child."""
    file = cache / "pids"
    return [int(word) for word in file.read_text().split()] if file.exists() else []


def started(cache: Path, place: str) -> subprocess.Popen[bytes]:
    """The harness, in whose machine two processes run."""
    environ = {**os.environ, "PATH": f"{cache / 'bin'}:{os.environ['PATH']}"}
    harness = subprocess.Popen(
        [sys.executable, "-c", HARNESS, str(cache), place], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL
    )
    try:
        eventually(lambda: len(pids(cache)) == 2, within=30, what="a machine")
    except BaseException:
        harness.kill()
        harness.wait()
        raise
    return harness


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.mark.parametrize("place", ["alone", "beside"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_machine_with_all_that_it_started(cache: Path, number: signal.Signals, place: str) -> None:
    harness = started(cache, place)
    harness.send_signal(number)
    assert harness.wait(30) == 128 + number
    assert not [pid for pid in pids(cache) if alive(pid)]
    assert not list(cache.glob("uml-*")), "nor its disk"


def test_a_killed_harness_takes_its_machine_along_and_the_next_one_sweeps(cache: Path) -> None:
    harness = started(cache, "beside")
    harness.kill()
    harness.wait()
    eventually(lambda: not alive(pids(cache)[0]), within=30, what="the end of the machine")
    left = list(cache.glob("uml-*"))
    (cache / "pids").unlink()
    following = started(cache, "beside")
    (own,) = cache.glob("uml-*")
    following.terminate()
    following.wait()
    assert len(left) == 1 and own not in left
