"""kill -9 of an engine's processes in the middle of a stream, of the daemon, and SIGTERM under load: real engines."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.daemon import Daemon, daemon, eventually, session_members
from tests.real.conftest import ENGINES, GREEDY, PARIS, demo_models

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


class Stream(threading.Thread):
    """A client in the middle of a long answer."""

    def __init__(self, url: str, model: str) -> None:
        super().__init__(daemon=True)
        self.url, self.model = url, model
        self.parts = 0
        self.error: Exception | None = None
        self.ended_at = 0.0
        self.flowing = threading.Event()

    def run(self) -> None:
        try:
            with ollama.Client(self.url, timeout=300) as client:
                # Without a template the small model counts on and on; asked in a chat it may stop after a line.
                options = {"temperature": 0, "num_predict": 2000}
                for _ in client.generate(self.model, "1, 2, 3, 4, 5, 6, 7,", raw=True, stream=True, options=options):
                    self.parts += 1
                    if self.parts == 3:
                        self.flowing.set()
        except Exception as failure:
            self.error = failure
        self.ended_at = time.monotonic()
        self.flowing.set()


def answer(url: str, model: str) -> str:
    with ollama.Client(url, timeout=600) as client:
        return client.chat(model, PARIS, options=GREEDY).message.content or ""


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
@pytest.mark.parametrize("engine", ENGINES)
def test_kill_in_the_middle_of_a_stream(served: Daemon, engine: str, victim: Callable[[int], int]) -> None:
    model = f"demo-{engine}"
    answer(served.url, model)
    pid = served.row(model)["pid"]
    assert pid > 1
    old = session_members(pid)
    assert pid in old
    stream = Stream(served.url, model)
    stream.start()
    assert stream.flowing.wait(60)
    assert stream.error is None
    killed_at = time.monotonic()
    os.kill(victim(pid), signal.SIGKILL)
    stream.join(30)
    assert isinstance(stream.error, ollama.ResponseError), f"after {stream.parts} parts: {stream.error!r}"
    assert stream.ended_at - killed_at < 2.0
    assert "Paris" in answer(served.url, model)
    eventually(
        lambda: not any(Path(f"/proc/{p}").exists() for p in old), within=5, what="nobody left of the old engine"
    )
    assert served.row(model)["pid"] not in old


def one_engine(engine: str) -> dict[str, Any]:
    name = f"demo-{engine}"
    return {name: demo_models()[name]}


@pytest.mark.parametrize("engine", ENGINES)
def test_sigterm_under_load_then_a_kill_and_a_clean_start(engine: str) -> None:
    model = f"demo-{engine}"
    with daemon(one_engine(engine)) as running:
        assert "Paris" in answer(running.url, model)
        stream = Stream(running.url, model)
        stream.start()
        assert stream.flowing.wait(60)
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 5 + 10 + 5, "grace, stop_timeout and a little"
        stream.join(5)
        assert not stream.is_alive()
        assert running.leftovers() == []
        assert not list((running.root / "run").rglob("*sock*"))

        running.start()
        assert "Paris" in answer(running.url, model)
        assert running.leftovers()
        running.kill()  # the daemon, with no time to say anything
        eventually(lambda: not running.leftovers(), within=5, what="the engines end with the daemon")
        running.start()  # a stale admin socket lies there
        assert running.ps() == []
