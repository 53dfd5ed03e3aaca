"""The real engines: the official client gets the right answer from each, alone, together, many at once."""

from __future__ import annotations

import concurrent.futures
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import ollama
import pytest

from tests.daemon import Daemon
from tests.real.conftest import ENGINES, GREEDY, LONG, PARIS

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture(params=ENGINES)
def model(request: pytest.FixtureRequest) -> str:
    return f"demo-{request.param}"


@pytest.fixture
def client(served: Daemon) -> Iterator[ollama.Client]:
    with ollama.Client(served.url, timeout=600) as client:
        yield client


def test_whole(client: ollama.Client, model: str) -> None:
    reply = client.chat(model, PARIS, options=GREEDY)
    assert "Paris" in (reply.message.content or "")
    assert (reply.done, reply.done_reason) == (True, "stop")
    assert reply.eval_count and reply.prompt_eval_count and reply.eval_duration and reply.total_duration


def test_streamed(client: ollama.Client, model: str) -> None:
    parts = list(client.chat(model, PARIS, options=GREEDY, stream=True))
    text = "".join(part.message.content or "" for part in parts)
    assert "Paris" in text
    assert len(parts) > 3, "it came in pieces"
    assert parts[-1].done
    assert parts[-1].eval_count and parts[-1].eval_count >= len(parts) - 2
    assert text == client.chat(model, PARIS, options=GREEDY).message.content, "greedy: the same as whole"


def test_generate_with_system_and_stop(client: ollama.Client, model: str) -> None:
    ask: dict[str, Any] = {"system": PARIS[0]["content"], "options": GREEDY}
    reply = client.generate(model, PARIS[1]["content"], **ask)
    assert "Paris" in reply.response
    cut = client.generate(model, PARIS[1]["content"], **{**ask, "options": {**GREEDY, "stop": ["Paris"]}})
    assert cut.response == reply.response.split("Paris")[0]
    assert cut.done_reason == "stop"


def test_num_predict_ends_with_length(client: ollama.Client, model: str) -> None:
    reply = client.chat(model, LONG, options={"temperature": 0, "num_predict": 5})
    assert (reply.eval_count, reply.done_reason) == (5, "length")


def test_a_seed_repeats(client: ollama.Client, model: str) -> None:
    options = {"temperature": 1.0, "seed": 42, "num_predict": 16}
    first, second = (client.chat(model, LONG, options=options).message.content for _ in range(2))
    assert first == second


def test_raw_goes_to_the_model_as_it_is(client: ollama.Client, model: str) -> None:
    reply = client.generate(model, "The capital of France is", raw=True, options={"temperature": 0, "num_predict": 8})
    assert "Paris" in reply.response


def test_eight_streams_at_once(served: Daemon, model: str) -> None:
    def stream(_: int) -> str:
        with ollama.Client(served.url, timeout=600) as own:
            parts = own.chat(model, PARIS, options=GREEDY, stream=True)
            return "".join(part.message.content or "" for part in parts)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(stream, range(8)))
    assert all("Paris" in text for text in texts), texts


def test_two_and_more_loaded_at_once(client: ollama.Client, served: Daemon) -> None:
    for engine in ENGINES:
        client.chat(f"demo-{engine}", PARIS, options={"num_predict": 1})
    shown = {m.model: m for m in client.ps().models}
    rows = {row["name"]: row for row in served.ps()}
    for engine in ENGINES:
        row, seen = rows[f"demo-{engine}:latest"], shown[f"demo-{engine}:latest"]
        assert (row["engine"], row["state"]) == (engine, "ready")
        assert row["processor"] == "100% CPU"
        assert row["context"] == seen.context_length == 4096
        assert row["size"] > 100e6
        assert seen.size and seen.size > 100e6
        assert seen.expires_at is not None and seen.expires_at.year > 2200
        assert len(seen.digest or "") == 64
    table = served.ctl("ps").stdout
    for column in ("NAME", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL", "STATE", "ENGINE"):
        assert column in table


def test_metrics_tell_what_happened(client: ollama.Client, served: Daemon) -> None:
    client.chat("demo-llama_cpp", PARIS, options=GREEDY)
    with urllib.request.urlopen(served.url + "/metrics") as reply:
        text = reply.read().decode()
    for name in ("requests_total", "tokens_total", "time_to_first_token", "instances"):
        assert name in text
    with urllib.request.urlopen(served.url + "/health") as reply:
        assert json.load(reply)["status"] == "ok"


def test_load_and_unload_by_command(served: Daemon) -> None:
    name = "demo-llama_cpp"
    served.ctl("unload", name)
    assert not [row for row in served.ps() if row["name"].startswith(name)]
    loaded = served.ctl("load", name)
    assert "ready" in loaded.stdout + loaded.stderr
    assert served.row(name)["state"] == "ready"
    assert "llama" in served.ctl("logs", name).stdout.lower()
    assert served.ctl("unload", "demo-nope", check=False).returncode == 4
