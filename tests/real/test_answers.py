"""The real engines: the official client gets the right answer from each, alone and many at once."""

from __future__ import annotations

import concurrent.futures
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import ollama
import pytest

from tests.daemon import Daemon
from tests.real.conftest import GREEDY, LONG, MODEL, PARIS

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture
def client(served: Daemon) -> Iterator[ollama.Client]:
    with ollama.Client(served.url, timeout=600) as client:
        yield client


def test_whole(client: ollama.Client) -> None:
    reply = client.chat(MODEL, PARIS, options=GREEDY)
    assert "Paris" in (reply.message.content or "")
    assert (reply.done, reply.done_reason) == (True, "stop")
    assert reply.eval_count and reply.prompt_eval_count and reply.eval_duration and reply.total_duration


def test_streamed(client: ollama.Client) -> None:
    parts = list(client.chat(MODEL, PARIS, options=GREEDY, stream=True))
    text = "".join(part.message.content or "" for part in parts)
    assert "Paris" in text
    assert len(parts) > 3, "it came in pieces"
    assert parts[-1].done
    assert parts[-1].eval_count and parts[-1].eval_count >= len(parts) - 2
    assert text == client.chat(MODEL, PARIS, options=GREEDY).message.content, "greedy: the same as whole"


def test_generate_with_system_and_stop(client: ollama.Client) -> None:
    ask: dict[str, Any] = {"system": PARIS[0]["content"], "options": GREEDY}
    reply = client.generate(MODEL, PARIS[1]["content"], **ask)
    assert "Paris" in reply.response
    cut = client.generate(MODEL, PARIS[1]["content"], **{**ask, "options": {**GREEDY, "stop": ["Paris"]}})
    assert cut.response == reply.response.split("Paris")[0]
    assert cut.done_reason == "stop"


def test_num_predict_ends_with_length(client: ollama.Client) -> None:
    reply = client.chat(MODEL, LONG, options={"temperature": 0, "num_predict": 5})
    assert (reply.eval_count, reply.done_reason) == (5, "length")


def test_a_seed_repeats(client: ollama.Client) -> None:
    options = {"temperature": 1.0, "seed": 42, "num_predict": 16}
    first, second = (client.chat(MODEL, LONG, options=options).message.content for _ in range(2))
    assert first == second


def test_raw_goes_to_the_model_as_it_is(client: ollama.Client) -> None:
    reply = client.generate(MODEL, "The capital of France is", raw=True, options={"temperature": 0, "num_predict": 8})
    assert "Paris" in reply.response


def test_eight_streams_at_once(served: Daemon) -> None:
    def stream(_: int) -> str:
        with ollama.Client(served.url, timeout=600) as own:
            parts = own.chat(MODEL, PARIS, options=GREEDY, stream=True)
            return "".join(part.message.content or "" for part in parts)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(stream, range(8)))
    assert all("Paris" in text for text in texts), texts


def test_metrics_tell_what_happened(client: ollama.Client, served: Daemon) -> None:
    client.chat(MODEL, PARIS, options=GREEDY)
    with urllib.request.urlopen(served.url + "/metrics") as reply:
        text = reply.read().decode()
    for name in ("requests_total", "tokens_total", "time_to_first_token", "instances"):
        assert name in text
    with urllib.request.urlopen(served.url + "/health") as reply:
        assert json.load(reply)["status"] == "ok"
