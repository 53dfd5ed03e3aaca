"""A restart of the daemon under real engines: its next life goes on with them, and answers with what is loaded."""

from __future__ import annotations

import signal

import pytest

from tests.daemon import daemon, eventually, session_members
from tests.real.conftest import MODEL, answer, demo_model

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.mark.parametrize("which", ["llama_cpp", "vllm"])
def test_the_same_process_answers_after_a_restart_and_after_a_kill(which: str) -> None:
    with daemon({MODEL: demo_model(which)}, main='[fleet]\nadopt_within = "2m"\n') as running:
        before = answer(running.url, MODEL)
        assert "Paris" in before
        row = running.row(MODEL)
        members = session_members(row["pid"])
        for how in (signal.SIGUSR1, signal.SIGKILL):
            assert running.process is not None
            running.process.send_signal(how)
            running.process.wait(30)
            assert session_members(row["pid"]) == members
            running.start()
            assert answer(running.url, MODEL) == before
            now = running.row(MODEL)
            assert (now["pid"], now["context"], now["restarts"]) == (row["pid"], row["context"], 0)
        assert running.stop() == 0
        eventually(lambda: not session_members(row["pid"]), within=5, what="a stop ends it")
