"""Engines that outlive the daemon: its next life goes on with them, a stop ends them, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.supervision import procfs
from tests import fake_llama_server
from tests.daemon import Daemon, daemon, eventually
from tests.supervision.processes import alive

FLEET = '[fleet]\nadopt_within = "{within}"\nkeep_alive = "7m"\nstop_timeout = "2s"\n'
Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A daemon over fake engines, with a model `m` that has the given vices."""
    environ = fake_llama_server.installed(tmp_path)
    path = fake_llama_server.model(tmp_path)

    def run(*vices: str, within: str = "20s", **keys: Any) -> contextlib.AbstractContextManager[Daemon]:
        models = {"m": {"path": path, "args": list(vices), **keys}}
        return daemon(models, main=FLEET.format(within=within), environ=environ, engines=tmp_path / "engines")

    return run


def ask(running: Daemon, **body: Any) -> dict[str, Any]:
    """One answer to a chat."""
    request = {"model": "m", "messages": [{"role": "user", "content": "count"}], "stream": False, **body}
    with urllib.request.urlopen(running.url + "/api/chat", json.dumps(request).encode(), timeout=30) as reply:
        answer: dict[str, Any] = json.load(reply)
    return answer


def restart(running: Daemon, how: signal.Signals = signal.SIGUSR1) -> None:
    assert running.process is not None
    running.process.send_signal(how)
    assert running.process.wait(20) == (0 if how is signal.SIGUSR1 else -how)
    running.start()


def everybody(running: Daemon) -> list[int]:
    """Guard and engine of `m`."""
    engine = running.row("m")["pid"]
    found = procfs.process(engine)
    assert found is not None
    return [found.parent, *procfs.descendants(found.parent, procfs.processes())]


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGKILL])
def test_the_next_life_goes_on_with_the_engine(start: Start, how: signal.Signals) -> None:
    with start("--worker", context=2048, parallel=2) as running:
        ask(running, keep_alive="3m")
        before, tree = running.row("m"), everybody(running)
        restart(running, how)
        eventually(lambda: running.row("m")["state"] == "ready", within=10, what="the adopted one is ready")
        after = running.row("m")
        assert after["pid"] == before["pid"]
        for what in ("name", "id", "engine", "context", "parallel", "restarts"):
            assert after[what] == before[what], what
        assert ask(running)["message"]["content"] == "one two three four five six seven eight nine ten"
        assert running.row("m")["pid"] == before["pid"], "nothing was loaded again"
        assert "is adopted as process" in running.log.read_text()
        minutes = (running.row("m")["until"] - running.row("m")["since"]) / 60
        assert minutes == pytest.approx(3, abs=0.5), "the keep-alive of its request"
        assert running.stop() == 0
        assert not any(alive(pid) for pid in tree), "a stop ends it"


def test_again_and_again(start: Start) -> None:
    with start() as running:
        ask(running)
        pid = running.row("m")["pid"]
        for how in (signal.SIGUSR1, signal.SIGKILL, signal.SIGUSR1):
            restart(running, how)
            ask(running)
            assert running.row("m")["pid"] == pid
        assert len(list((running.root / "run/e").iterdir())) == 1


def test_what_it_prints_meanwhile_is_read_by_the_next_life(start: Start) -> None:
    with start("--log-flood", "100") as running:
        ask(running)
        restart(running)  # in the middle of it, unless the machine is very quick
        eventually(lambda: "flood over" in running.ctl("logs", "m").stdout, within=30, what="the end of the flood")


def test_a_stop_ends_it(start: Start) -> None:
    with start("--worker", "--fork") as running:
        ask(running)
        tree = everybody(running)
        assert len(tree) == 4
        assert running.stop() == 0
        assert not any(alive(pid) for pid in tree)


def test_without_a_next_life_it_ends_in_time(start: Start) -> None:
    with start("--worker", "--ignore-term", within="300ms") as running:
        ask(running)
        tree = everybody(running)
        running.kill()
        eventually(lambda: not any(alive(pid) for pid in tree), within=10, what="guard and engine end by themselves")


def test_without_adoption_it_ends_at_once(start: Start) -> None:
    with start("--worker", within="0") as running:
        ask(running)
        tree = everybody(running)
        assert running.process is not None
        running.process.send_signal(signal.SIGUSR1)
        assert running.process.wait(20) == 0
        assert not any(alive(pid) for pid in tree)


def test_one_that_would_be_run_otherwise_is_ended(start: Start) -> None:
    with start() as running:
        ask(running)
        old = everybody(running)
        file = running.root / "etc/models.d/m.toml"
        file.write_text(file.read_text() + "context = 1024\n")
        restart(running)
        assert running.ps() == []
        assert not any(alive(pid) for pid in old)
        assert "the model would be run otherwise now" in running.log.read_text()
        ask(running)
        assert running.row("m")["pid"] not in old


def test_one_that_died_meanwhile_is_no_hindrance(start: Start) -> None:
    with start() as running:
        ask(running)
        pid = running.row("m")["pid"]
        running.kill()
        os.kill(pid, signal.SIGKILL)
        running.start()
        assert running.ps() == []
        assert ask(running)["done"]


def test_one_that_is_still_loading_goes_on_loading(start: Start) -> None:
    with start("--slow", "3") as running:
        client = threading.Thread(target=_quiet, args=(running,))
        client.start()
        eventually(lambda: running.ps() and running.row("m")["pid"], within=10, what="it is loading")
        pid = running.row("m")["pid"]
        restart(running)
        client.join(10)
        assert ask(running)["done"]
        assert running.row("m")["pid"] == pid


def _quiet(running: Daemon) -> None:
    """A request that will not be answered."""
    with contextlib.suppress(OSError, ValueError):
        try:
            ask(running)
        except urllib.error.HTTPError as refusal:
            refusal.close()  # a warning in later versions of Python
            raise


class Stream(threading.Thread):
    """A client in the middle of an answer."""

    def __init__(self, running: Daemon, **body: Any) -> None:
        super().__init__(daemon=True)
        self._url = running.url
        self._body = {"model": "m", "messages": [{"role": "user", "content": "count"}], **body}
        self.lines: list[dict[str, Any]] = []
        self.flowing = threading.Event()

    def run(self) -> None:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(self._url + "/api/chat", json.dumps(self._body).encode(), timeout=30) as reply,
        ):
            for line in reply:
                self.lines.append(json.loads(line))
                self.flowing.set()


def test_a_stream_is_drained_before_the_restart(start: Start) -> None:
    with start("--token-delay", "0.15") as running:
        stream = Stream(running)
        stream.start()
        assert stream.flowing.wait(20)
        pid = running.row("m")["pid"]
        restart(running)
        stream.join(10)
        assert stream.lines[-1]["done"], "it was shorter than the grace"
        ask(running)
        assert running.row("m")["pid"] == pid


def test_a_stream_longer_than_the_grace_ends_with_an_error_line(start: Start) -> None:
    with start("--token-delay", "2") as running:
        stream = Stream(running)
        stream.start()
        assert stream.flowing.wait(20)
        pid = running.row("m")["pid"]
        restart(running)
        stream.join(10)
        assert "restarting" in stream.lines[-1]["error"]
        assert running.row("m")["pid"] == pid
