"""kill -9 of an engine's processes in the middle of a stream, and of the daemon: real engines."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import ollama
import pytest

from tests.daemon import Daemon, eventually, session_members
from tests.real.conftest import MODEL, answer
from tests.real.streams import COUNT, Stream

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


def main_process(pid: int) -> int:
    return pid


def worker_process(pid: int) -> int:
    """The biggest other process of the engine's session; llama.cpp has none, so its main process."""

    def resident(process: int) -> int:
        with contextlib.suppress(OSError):
            return int(Path(f"/proc/{process}/statm").read_text().split()[1])
        return 0

    return max((p for p in session_members(pid) if p != pid), key=resident, default=pid)


@pytest.mark.parametrize("victim", [main_process, worker_process])
def test_kill_in_the_middle_of_a_stream(served: Daemon, victim: Callable[[int], int]) -> None:
    answer(served.url, MODEL)
    pid = served.row(MODEL)["pid"]
    assert pid > 1
    old = session_members(pid)
    assert pid in old
    # Drawn from a seed it cannot be continued, so the client hears of the death.
    stream = Stream(served.url, MODEL, temperature=0.01, seed=1)
    stream.start()
    assert stream.flowing.wait(60)
    assert stream.error is None
    killed_at = time.monotonic()
    os.kill(victim(pid), signal.SIGKILL)
    stream.join(30)
    assert isinstance(stream.error, ollama.ResponseError), f"after {stream.parts} parts: {stream.error!r}"
    assert stream.ended_at - killed_at < 2.0
    assert "Paris" in answer(served.url, MODEL)
    eventually(
        lambda: not any(Path(f"/proc/{p}").exists() for p in old), within=5, what="nobody left of the old engine"
    )
    assert served.row(MODEL)["pid"] not in old


@pytest.mark.long
def test_an_answer_goes_on_where_its_engine_was_killed(served: Daemon) -> None:
    """Greedy, it is the same text as in peace.  More of this: tests/faults."""
    options = {"temperature": 0, "num_predict": 32}
    with ollama.Client(served.url, timeout=600) as client:
        expected = client.generate(MODEL, COUNT, raw=True, options=options).response
    stream = Stream(served.url, MODEL, **options)
    stream.start()
    assert stream.flowing.wait(60)
    os.kill(served.row(MODEL)["pid"], signal.SIGKILL)
    stream.join(400)
    assert (stream.text, stream.error) == (expected, None)


def test_kill_of_the_daemon(served: Daemon) -> None:
    """The last test here: the engine it takes with it need not be loaded again."""
    answer(served.url, MODEL)
    assert served.leftovers()
    served.kill()  # no time to say anything
    eventually(lambda: not served.leftovers(), within=5, what="the engine ends with the daemon")
    served.start()  # a stale admin socket lies there
    assert served.ps() == []
