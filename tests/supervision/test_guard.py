"""The guard as the process it is: what it says, whom it ends, what it costs."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.supervision import procfs
from hyperllamad.supervision.child import GUARD
from hyperllamad.supervision.guard import is_tracker
from tests.supervision.processes import alive, wait_for_blocking

PR_CAPBSET_DROP, CAP_KILL = 24, 5  # linux/prctl.h, linux/capability.h

# A tree of the kind vLLM makes, plus one who left the session, plus one whose parent died at once.
TREE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def child(then):
    pid = os.fork()
    if pid == 0:
        then()
        time.sleep(600)
        os._exit(0)
    print(pid, flush=True)
    return pid
child(lambda: child(lambda: None))
child(os.setsid)
def twice():
    os.setsid()
    child(lambda: None)
    os._exit(0)
os.waitpid(child(twice), 0)
print("up", flush=True)
"""


class Guarded:
    """A guard with the daemon's end of its socket."""

    def __init__(
        self, *command: str, group: str = "", place: str = "", patience: float = 0, without: int | None = None
    ) -> None:
        """`without`: a capability that it is not to have."""
        self.control, theirs = socket.socketpair()
        self.control.settimeout(10)
        argv = [sys.executable, "-I", "-S", str(GUARD), str(theirs.fileno()), group, place, str(patience), *command]
        out = subprocess.PIPE
        drop = None if without is None else partial(ctypes.CDLL(None).prctl, PR_CAPBSET_DROP, without)
        more: dict[str, Any] = {"start_new_session": True, "text": True, "preexec_fn": drop}
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdout=out, **more)
        theirs.close()
        self._messages = self.control.makefile("r")

    def message(self) -> dict[str, Any]:
        """The next line; {} at the end of the stream."""
        line = self._messages.readline()
        return json.loads(line) if line else {}

    def tree(self, count: int) -> list[int]:
        """The numbers a TREE prints, once it is up."""
        assert self.process.stdout is not None
        lines = {self.process.stdout.readline().strip() for _ in range(count + 1)}
        return [int(line) for line in lines - {"up"}]

    def close(self) -> None:
        self._messages.close()
        self.control.close()


@pytest.fixture
def guarded() -> Iterator[Any]:
    made: list[Guarded] = []

    def make(*command: str, **more: Any) -> Guarded:
        made.append(Guarded(*command, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()
        assert one.process.stdout is not None
        one.process.stdout.close()
        one.process.wait(10)


def python(text: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", text, *arguments]


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_guard_leaves_signals_to_the_daemon(guarded: Any, number: int) -> None:
    guard = guarded("sleep", "600")
    main = guard.message()["pid"]
    guard.process.send_signal(number)
    guard.control.send(b"T")  # answered, so the signal before it had its chance
    assert guard.message() == {"exit": -signal.SIGTERM}
    assert not alive(main)


def test_the_engine_dies_with_its_guard(guarded: Any) -> None:
    guard = guarded("sleep", "600")
    main = guard.message()["pid"]
    guard.process.kill()
    wait_for_blocking(lambda: not alive(main))


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
