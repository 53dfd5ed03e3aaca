"""The real engines under spoilt bodies: none of them dies, none fails for us, and each answers afterwards."""

from __future__ import annotations

import contextlib
import json
import random
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

import pytest

from tests.daemon import Daemon
from tests.front.mutations import REQUESTS, spoilt
from tests.front.test_mutations import THEIRS
from tests.real.conftest import MODEL, answer

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(600)]

ROUNDS = 5  # bodies for each route; in-process there are many more
ROUTES = (
    *("/api/chat", "/api/generate", "/api/embed", "/api/tokenize", "/api/detokenize"),
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"),
)
# As in Ollama an engine's own words are passed on, and its status with them.
PASSED_ON = (*THEIRS, ("/api/", "image input is not supported"), ("/api/embed", "not support embeddings"))
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def tamed(body: bytes) -> bytes:
    """For a real model, and short: an answer without a limit takes minutes, and loading again longer."""
    with contextlib.suppress(ValueError, RecursionError):
        made = json.loads(body)
        if isinstance(made, dict):
            made.pop("keep_alive", None)
            made |= {"model": MODEL, **dict.fromkeys(LIMITS, 1)}
            if isinstance(made.get("options", {}), dict):
                made["options"] = made.get("options", {}) | {"num_predict": 1}
                return json.dumps(made).encode()
            return b"{}"
    return body


def post(served: Daemon, path: str, body: bytes) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(served.url + path, body, timeout=120) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def words(raw: bytes) -> str:
    error: Any = json.loads(raw)["error"]
    return str(error["message"] if isinstance(error, dict) else error)


def test_spoilt_bodies(served: Daemon, engine: str) -> None:
    rng, seen, failed = random.Random(f"real {engine}"), Counter[int](), []
    assert answer(served.url, MODEL)
    pid = served.row(MODEL)["pid"]
    for path in ROUTES:
        for _ in range(ROUNDS):
            body = tamed(spoilt(REQUESTS[path], rng))
            status, reply = post(served, path, body)
            seen[status] += 1
            if status >= 500 and not any(path.startswith(at) and said in words(reply) for at, said in PASSED_ON):
                failed.append((path, body, status, words(reply)))
    assert failed == []
    assert "Paris" in answer(served.url, MODEL)
    assert served.row(MODEL)["pid"] == pid
    few = engine == "max"  # it refuses a format and tools, which the good bodies of most routes ask for
    assert seen[200] > (1 if few else ROUNDS), seen
    assert seen[400] > ROUNDS, seen
