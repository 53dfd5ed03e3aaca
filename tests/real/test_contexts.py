"""Contexts with the real llama.cpp: what a chat that is too long loses, and a `num_ctx` beyond what runs."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon import Daemon, daemon, eventually
from tests.real.conftest import MODEL, PARIS, demo_model

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

CONTEXT = 256
SYSTEM, QUESTION = PARIS
TALK = [SYSTEM, *({"role": role, "content": "word " * 40} for _ in range(6) for role in ("user", "assistant"))]


@pytest.fixture(scope="module", params=[False, True], ids=["fixed", "growing"])
def small(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    main = f"[models]\ngrow_context = {str(request.param).lower()}\n"
    with daemon({MODEL: {**demo_model("llama_cpp"), "context": CONTEXT}}, main=main) as running:
        yield running


def chat(running: Daemon, **more: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The answer, and the headers by their lower-case names."""
    body = {"model": MODEL, "messages": [*TALK, QUESTION], "stream": False, **more}
    body["options"] = {"temperature": 0, "num_predict": 16, **more.get("options", {})}
    with urllib.request.urlopen(f"{running.url}/api/chat", json.dumps(body).encode()) as reply:
        return json.load(reply), {name.lower(): value for name, value in reply.headers.items()}


def test_the_oldest_messages_go_and_the_answer_is_right(small: Daemon) -> None:
    reply, headers = chat(small)
    assert "Paris" in reply["message"]["content"]
    dropped, context = headers["x-hyperllama-truncated"].split(", ")
    assert context == f"context={CONTEXT}"
    assert 6 <= int(dropped.removeprefix("dropped=")) <= 12
    assert 100 < reply["prompt_eval_count"] < CONTEXT
    assert "the oldest messages of a chat were left out" in small.log.read_text()
    assert "x-hyperllama-truncated" not in chat(small, messages=PARIS)[1]


def test_a_larger_num_ctx(small: Daemon) -> None:
    growing = "grow_context = true" in (small.root / "etc/hyperllamad.toml").read_text()
    reply, headers = chat(small, options={"num_ctx": 2048})
    assert "Paris" in reply["message"]["content"]
    if not growing:
        assert headers["x-hyperllama-num-ctx"] == f"asked=2048, context={CONTEXT}"
        assert small.row(MODEL)["context"] == CONTEXT
        return
    assert not {"x-hyperllama-num-ctx", "x-hyperllama-truncated"} & headers.keys()
    assert reply["prompt_eval_count"] > CONTEXT
    eventually(lambda: [row["context"] for row in small.ps()] == [2048], within=20, what="the smaller one has gone")
    assert "x-hyperllama-truncated" not in chat(small)[1], "and the larger one stays"
