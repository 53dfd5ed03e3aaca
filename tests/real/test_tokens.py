"""Tokens of the real engines: there and back again, alike where an engine shows them, refused where it does not."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.daemon import Daemon
from tests.real.conftest import MODEL

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(600)]

TEXT = "Hello wörld, <|im_start|>user  日本"
TOKENS = [19556, 267, 29989, 400, 28, 216, 1, 4093, 216, 17097, 241, 115, 40993]


def post(served: Daemon, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{served.url}/api/{path}", json.dumps({"model": MODEL, **body}).encode()) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_tokens_there_and_back(served: Daemon, engine: str) -> None:
    status, reply = post(served, "tokenize", {"content": TEXT})
    if engine == "max":
        says = "MAX does not show its tokenizer (run the model on llama.cpp or vLLM, which do)"
        assert (status, reply["error"]) == (400, says)
        return
    assert (status, reply["tokens"]) == (200, TOKENS)
    status, back = post(served, "detokenize", {"tokens": TOKENS})
    assert (status, back["content"]) == (200, TEXT)
    status, reply = post(served, "detokenize", {"tokens": [49152]})
    assert (status, reply["error"]) == (400, "49152 is no token of this model (its tokens are 0 to 49151)")
