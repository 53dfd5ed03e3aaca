"""The guard as the process it is: what it says, whom it obeys, what it costs."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.supervision import procfs
from tests.supervision.guarding import TREE, python
from tests.supervision.processes import alive, wait_for_blocking


@pytest.mark.parametrize(("ends", "code"), [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("os.abort()", -signal.SIGABRT)])
def test_the_exit_is_reported_as_subprocess_would(guarded: Any, ends: str, code: int) -> None:
    guard = guarded(*python(f"import os, sys; {ends}"))
    assert guard.message()["pid"]
    assert guard.message() == {"exit": code}
    assert guard.message() == {}
    assert guard.process.wait(10) == 0


def test_a_program_that_is_not_there_is_reported(guarded: Any) -> None:
    guard = guarded("/nonexistent/engine")
    assert guard.message() == {"spawn_error": 2}
    assert guard.message() == {}


def test_a_file_that_may_not_be_executed_is_reported(guarded: Any, tmp_path: Path) -> None:
    (tmp_path / "engine").touch(mode=0o600)
    assert guarded(str(tmp_path / "engine")).message() == {"spawn_error": 13}


def test_the_engine_leads_a_session_and_is_identified(guarded: Any) -> None:
    guard = guarded("sleep", "600")
    message = guard.message()
    engine = procfs.process(message["pid"])
    assert engine is not None
    assert (engine.session, engine.start) == (message["pid"], message["start"])
    assert engine.parent == guard.process.pid
    guard.control.send(b"K")
    assert guard.message() == {"exit": -signal.SIGKILL}


def test_the_engine_inherits_nothing_of_the_guard(guarded: Any) -> None:
    """No descriptor but the three, no ignored or blocked signal."""
    text = "import os; print(sorted(os.listdir('/proc/self/fd')), [x for x in open('/proc/self/status') if 'Sig' in x])"
    guard = guarded(
        "sh", "-c", f'grep -E "Sig(Blk|Ign|Cgt)" /proc/self/status; exec {sys.executable} -I -S -c "{text}"'
    )
    printed = guard.process.stdout.read().split()
    ignored = int(printed[printed.index("SigIgn:") + 1], 16)
    # Python cannot touch the two that the C library keeps for itself (32 and 33); those are as the parent had them.
    ours = sum(1 << number - 1 for number in signal.valid_signals() - {signal.SIGPIPE})
    assert ignored & ours == 0, "an ignored signal would make an engine deaf"
    assert int(printed[printed.index("SigBlk:") + 1], 16) == 0
    assert "['0', '1', '2', '3']" in " ".join(printed)  # 3 is the listing itself


def test_terminate_reaches_the_main_process_only(guarded: Any) -> None:
    text = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print('up', flush=True)"
    guard = guarded(*python(f"{text}; time.sleep(600)"))
    assert guard.message()["pid"]
    guard.tree(0)
    guard.control.send(b"T")
    assert guard.message() == {"exit": 5}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_guard_leaves_signals_to_the_daemon(guarded: Any, number: int) -> None:
    guard = guarded("sleep", "600")
    main = guard.message()["pid"]
    guard.process.send_signal(number)
    guard.control.send(b"T")  # answered, so the signal before it had its chance
    assert guard.message() == {"exit": -signal.SIGTERM}
    assert not alive(main)


def test_the_guard_sleeps_and_is_small(guarded: Any) -> None:
    began = time.monotonic()
    guard = guarded("sleep", "600")
    guard.message()
    started = time.monotonic() - began
    assert started < 1.0  # 0.02 s on a quiet machine; this one may be busy
    status = Path(f"/proc/{guard.process.pid}/status")

    def switches() -> int:
        lines = status.read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

    wait_for_blocking(lambda: "State:\tS" in status.read_text())
    before = switches()
    select.select([], [], [], 0.3)  # a stretch of idle time, not a wait for anything
    assert switches() == before, "it wakes up though nothing happens"
    assert procfs.resident([guard.process.pid]) < 16 << 20
    guard.control.send(b"K")
    assert guard.message()["exit"] == -signal.SIGKILL


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("p")
    os.mkfifo(where / "out")
    return str(where)


def knock(place: str) -> socket.socket:
    door = socket.socket(socket.AF_UNIX)
    door.settimeout(10)
    door.connect(f"{place}/door")
    return door


def test_it_waits_for_the_next_daemon_and_obeys_it(guarded: Any, place: str) -> None:
    guard = guarded("sleep", "600", place=place, patience=20)
    hello = guard.message()
    guard.control.shutdown(socket.SHUT_RDWR)
    with knock(place) as control, control.makefile("r") as said:
        assert json.loads(said.readline()) == hello
        assert alive(hello["pid"])
        control.send(b"T")
        assert json.loads(said.readline()) == {"exit": -signal.SIGTERM}
    assert guard.process.wait(10) == 0


def test_whoever_comes_last_is_the_daemon(guarded: Any, place: str) -> None:
    """The one before need not be known to be gone yet: the kernel closes its sockets when it likes."""
    guard = guarded("sleep", "600", place=place, patience=20)
    hello = guard.message()
    with knock(place) as control, control.makefile("r") as said:
        assert json.loads(said.readline()) == hello
        assert guard.message() == {}
        control.send(b"K")
        assert json.loads(said.readline()) == {"exit": -signal.SIGKILL}


def test_it_does_not_wait_for_ever(guarded: Any, place: str) -> None:
    guard = guarded(*python(f"{TREE}\ntime.sleep(600)"), place=place, patience=0.2)
    guard.message()
    tree = guard.tree(5)
    guard.control.shutdown(socket.SHUT_RDWR)
    guard.process.wait(10)
    assert [pid for pid in tree if alive(pid)] == []


@pytest.mark.parametrize("asked", [b"T", b"K"])
def test_it_does_not_wait_once_the_end_was_asked_for(guarded: Any, place: str, asked: bytes) -> None:
    text = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    guard = guarded(*python(text), place=place, patience=600)
    main = guard.message()["pid"]
    guard.tree(0)
    guard.control.send(asked)
    guard.control.shutdown(socket.SHUT_RDWR)
    guard.process.wait(10)
    assert not alive(main)


def test_an_engine_that_ends_while_nobody_is_there_takes_its_guard_with_it(guarded: Any, place: str) -> None:
    guard = guarded("sleep", "600", place=place, patience=600)
    main = guard.message()["pid"]
    guard.control.shutdown(socket.SHUT_RDWR)
    os.kill(main, signal.SIGKILL)
    guard.process.wait(10)
