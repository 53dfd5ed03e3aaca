"""All three real engines in one daemon: what is told of them, commands, and SIGTERM in the middle of answers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import ollama
import pytest

from tests.daemon import Daemon, daemon
from tests.real.conftest import ENGINES, PARIS, answer, demo_model
from tests.real.streams import Stream

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def together() -> Iterator[Daemon]:
    models = {f"demo-{engine}": demo_model(engine) for engine in ENGINES}
    with daemon(models, main='[fleet]\nkeep_alive = "-1"\nmax_loaded_models = 3\n') as running:
        yield running


def test_three_loaded_at_once(together: Daemon) -> None:
    with ollama.Client(together.url, timeout=600) as client:
        for engine in ENGINES:
            client.chat(f"demo-{engine}", PARIS, options={"num_predict": 1})
        shown = {m.model: m for m in client.ps().models}
    rows = {row["name"]: row for row in together.ps()}
    for engine in ENGINES:
        row, seen = rows[f"demo-{engine}:latest"], shown[f"demo-{engine}:latest"]
        assert (row["engine"], row["state"]) == (engine, "ready")
        assert row["processor"] == "100% CPU"
        assert row["context"] == seen.context_length == 4096
        assert row["size"] > 100e6
        assert seen.size and seen.size > 100e6
        assert seen.expires_at is not None and seen.expires_at.year > 2200
        assert len(seen.digest or "") == 64
    table = together.ctl("ps").stdout
    for column in ("NAME", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL", "STATE", "ENGINE"):
        assert column in table


def test_load_and_unload_by_command(together: Daemon) -> None:
    name = "demo-llama_cpp"
    together.ctl("unload", name)
    assert not [row for row in together.ps() if row["name"].startswith(name)]
    loaded = together.ctl("load", name)
    assert "ready" in loaded.stdout + loaded.stderr
    assert together.row(name)["state"] == "ready"
    assert "llama" in together.ctl("logs", name).stdout.lower()
    assert together.ctl("unload", "demo-nope", check=False).returncode == 4


def test_sigterm_in_the_middle_of_answers_then_a_clean_start(together: Daemon) -> None:
    """The last test here: afterwards nothing is loaded."""
    streams = [Stream(together.url, f"demo-{engine}") for engine in ENGINES]
    for stream in streams:
        stream.start()
    for stream in streams:
        assert stream.flowing.wait(300)
        assert stream.error is None
    began = time.monotonic()
    assert together.stop() == 0
    assert time.monotonic() - began < 5 + 10 + 5, "grace, stop_timeout and a little"
    for stream in streams:
        stream.join(5)
        assert not stream.is_alive()
    assert together.leftovers() == []
    assert not list((together.root / "run").rglob("*sock*"))
    together.start()
    assert "Paris" in answer(together.url, "demo-llama_cpp")
