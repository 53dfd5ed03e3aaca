"""/api/tokenize and /api/detokenize over a scripted engine: what is asked of it, what comes back, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.front import fake_supervisor as fakes
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Answer, Asked, Whole

MODELS = (fakes.model("m", info={"llama.vocab_size": 100}), fakes.model("unknown"))
ENGINE = {"tokenize": "/tokenize", "detokenize": "/detokenize"}


def llama_cpp(asked: Asked) -> Answer:
    reply: dict[str, Any] = {"tokens": [1, 2]} if asked.path == "/tokenize" else {"content": "a <b> é"}
    return Whole(200, json.dumps(reply).encode())


def vllm(asked: Asked) -> Answer:
    reply = {"tokens": [1, 2], "count": 2} if asked.path == "/tokenize" else {"prompt": "a <b> é"}
    return Whole(200, json.dumps(reply).encode())


@pytest.mark.parametrize("script", [llama_cpp, vllm])
@pytest.mark.parametrize("name", ["content", "text", "prompt"])
async def test_there_and_back(house: OpenHouse, script: Any, name: str) -> None:
    async with house(script, engine=fakes.FakeEngine(**ENGINE), models=MODELS) as h:
        tokens = await h.client.post("/api/tokenize", {"model": "m", name: "a <b>", "add_special": True})
        text = await h.client.post("/api/detokenize", {"model": "M:latest", "tokens": [0, 99]})
        await h.wait_idle()
    assert (tokens.status, text.status) == (200, 200)
    assert tokens.header("content-type") == "application/json; charset=utf-8"
    assert list(tokens.json()) == ["model", "tokens", "total_duration", "load_duration"]
    assert (tokens.json()["model"], tokens.json()["tokens"]) == ("m", [1, 2])
    assert (text.json()["model"], text.json()["content"]) == ("M:latest", "a <b> é")
    assert tokens.json()["total_duration"] >= tokens.json()["load_duration"] >= 0
    asked = h.engine.asked[0].body
    assert (asked["content"], asked["prompt"], asked["model"]) == ("a <b>", "a <b>", h.supervisor.upstream.name)
    assert asked["add_special"] is asked["add_special_tokens"] is asked["parse_special"] is True
    assert h.engine.asked[1].body["tokens"] == [0, 99]


async def test_an_empty_text_is_a_text(house: OpenHouse) -> None:
    async with house(lambda _: Whole(200, b'{"tokens":[]}'), engine=fakes.FakeEngine(**ENGINE), models=MODELS) as h:
        assert (await h.client.post("/api/tokenize", {"model": "m", "content": ""})).json()["tokens"] == []


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("tokenize", {"content": "x"}, 404, "model '' not found"),
        ("tokenize", {"model": "none", "content": "x"}, 404, "model 'none' not found"),
        ("tokenize", {"model": "m"}, 400, "content is required"),
        ("tokenize", {"model": "m", "content": 1}, 400, "TokenizeRequest.content of type string"),
        ("detokenize", {"model": "m"}, 400, "tokens is required"),
        ("detokenize", {"model": "m", "tokens": "x"}, 400, "of type []int"),
        ("detokenize", {"model": "m", "tokens": [100]}, 400, "100 is no token of this model (its tokens are 0 to 99)"),
        ("detokenize", {"model": "m", "tokens": [-1]}, 400, "-1 is no token of this model"),
        ("detokenize", {"model": "unknown", "tokens": [2**31]}, 400, "2147483648 is no token of this model"),
    ],
)
async def test_what_is_wrong(house: OpenHouse, path: str, body: dict[str, Any], status: int, says: str) -> None:
    async with house(llama_cpp, engine=fakes.FakeEngine(**ENGINE), models=MODELS) as h:
        reply = await h.client.post(f"/api/{path}", body)
        await h.wait_idle()
    assert (reply.status, says in reply.json()["error"], h.engine.asked) == (status, True, [])


@pytest.mark.parametrize(("path", "body"), [("tokenize", {"content": "x"}), ("detokenize", {"tokens": [1]})])
async def test_an_engine_that_cannot_is_not_asked_and_those_that_can_are_named(
    house: OpenHouse, path: str, body: dict[str, Any]
) -> None:
    async with house(llama_cpp) as h:
        reply = await h.client.post(f"/api/{path}", {"model": "m", **body})
        await h.wait_idle()
    says = "Scripted does not show its tokenizer (run the model on llama.cpp or vLLM, which do)"
    assert (reply.status, reply.json()["error"], h.engine.asked) == (400, says, [])


@pytest.mark.parametrize("answer", [b"{", b'{"tokens":["a"]}', b"[]"])
async def test_nonsense_from_the_engine_is_said(house: OpenHouse, answer: bytes) -> None:
    async with house(lambda _: Whole(200, answer), engine=fakes.FakeEngine(**ENGINE)) as h:
        reply = await h.client.post("/api/tokenize", {"model": "m", "content": "x"})
        await h.wait_idle()
    assert (reply.status, "sent what cannot be read" in reply.json()["error"]) == (500, True)
