"""POST /api/embed and /api/embeddings: shapes, order, lengths, inputs that are too long, and who is told what."""

from __future__ import annotations

import json
import math
import random
from array import array
from typing import Any

import pytest

from hyperllamad.front import embedding, ollama_embed
from tests.front import fake_supervisor as fakes
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Answer, Asked, Whole

ENGINE = fakes.FakeEngine(tokenize="/tokenize")
CONTEXT = 2048  # of the fake upstream
TOO_LONG = Whole(400, b'{"error":{"message":"too long"}}')


def engine(asked: Asked) -> Answer:
    """A token for each character, and a vector of three numbers that says how many; the last text comes first."""
    if asked.path == "/tokenize":
        return Whole(200, json.dumps({"tokens": [7] * len(asked.body["content"])}).encode())
    texts = asked.body["input"]
    if any(len(text) > CONTEXT - embedding.MARKS for text in texts):
        return TOO_LONG
    data = [{"index": i, "embedding": [float(len(text)), 2.0, 0.1]} for i, text in enumerate(texts)]
    usage = {"prompt_tokens": sum(map(len, texts))}
    return Whole(200, json.dumps({"data": data[::-1], "usage": usage}).encode())


async def test_a_vector_for_each_text(house: OpenHouse) -> None:
    async with house(engine) as h:
        reply = await h.client.post("/api/embed", {"model": "ME", "input": ["aaa", "b", ""], "keep_alive": "7m"})
        assert (reply.status, reply.header("content-type")) == (200, "application/json; charset=utf-8")
        found = reply.json()
        assert list(found) == ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"]
        assert (found["model"], found["prompt_eval_count"]) == ("ME", 4)
        assert found["total_duration"] >= found["load_duration"] > 0
        for size, vector in zip((3, 1, 0), found["embeddings"], strict=True):
            length = math.hypot(size, 2.0, 0.1)
            assert vector == pytest.approx([size / length, 2 / length, 0.1 / length], abs=1e-7)
        assert h.supervisor.keep_alive == 420
        await h.wait_idle()


@pytest.mark.parametrize("given", [{}, {"input": ""}, {"input": []}, {"input": None}])
async def test_nothing_to_embed_loads(house: OpenHouse, given: dict[str, Any]) -> None:
    async with house(engine) as h:
        reply = await h.client.post("/api/embed", {"model": "me", **given})
        assert reply.body == b'{"model":"me","embeddings":[]}'
        assert h.supervisor.loaded is not None
        assert h.engine.asked == []


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("embed", {"model": "nope", "input": [1]}, 400, "invalid input type"),
        ("embed", {"model": "me", "input": {"a": 1}}, 400, "invalid input type"),
        ("embed", {"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
        ("embed", {"model": "bad name"}, 400, "invalid model name"),
        ("embed", {}, 404, "model '' not found"),
        ("embeddings", {}, 400, "model is required"),
        ("embeddings", {"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
        ("embed", {"model": 1}, 400,
         "json: cannot unmarshal number into Go struct field EmbedRequest.model of type string"),
        ("embed", {"model": "me", "input": "a", "options": {"num_ctx": "x"}}, 500,
         'option "num_ctx" must be of type integer'),
        ("embeddings", {"name": "me", "options": {"stop": "x"}}, 500, 'option "stop" must be of type array'),
        ("embed", {"model": "me:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
    ],
)  # fmt: skip
async def test_refused(house: OpenHouse, path: str, body: dict[str, Any], status: int, error: str) -> None:
    async with house(engine) as h:
        reply = await h.client.post(f"/api/{path}", body)
        assert (reply.status, reply.json()) == (status, {"error": error})
        assert h.supervisor.taken == 0


async def test_the_engines_refusal_is_passed_on(house: OpenHouse) -> None:
    async with house(lambda _: Whole(501, b"cannot")) as h:
        for path, name, status in (("embed", "input", 501), ("embeddings", "prompt", 500)):
            reply = await h.client.post(f"/api/{path}", {"model": "m", name: "a"})
            assert (reply.status, reply.json()) == (status, {"error": "cannot"})


async def test_the_name_may_be_called_name(house: OpenHouse) -> None:
    async with house(engine) as h:
        assert (await h.client.post("/api/embed", {"name": "ME", "input": "a"})).json()["model"] == "ME"
        assert len((await h.client.post("/api/embeddings", {"name": "me", "prompt": "a"})).json()["embedding"]) == 3


async def test_dimensions(house: OpenHouse) -> None:
    async with house(engine) as h:
        for asked, length in ((2, 2), (0, 3), (9, 3)):
            reply = await h.client.post("/api/embed", {"model": "me", "input": "aaa", "dimensions": asked})
            (vector,) = reply.json()["embeddings"]
            assert len(vector) == length
            assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)


async def test_texts_that_are_too_long(house: OpenHouse) -> None:
    texts = ["a" * 5000, "b", "c" * 2047]
    async with house(engine, engine=ENGINE) as h:
        cut = (await h.client.post("/api/embed", {"model": "me", "input": texts})).json()
        assert cut["prompt_eval_count"] == 2046 + 1 + 2046
        refused = await h.client.post("/api/embed", {"model": "me", "input": texts, "truncate": False})
        assert (refused.status, refused.json()) == (400, {"error": "the input length exceeds the context length"})
    async with house(engine) as h:  # an engine that cannot count tokens
        reply = await h.client.post("/api/embed", {"model": "me", "input": texts})
        assert (reply.status, reply.json()) == (400, {"error": TOO_LONG.body.decode()})


async def test_the_older_form(house: OpenHouse) -> None:
    async with house(engine) as h:
        reply = await h.client.post("/api/embeddings", {"model": "me", "prompt": "aaa"})
        (vector,) = reply.json().values()
        length = math.hypot(3, 2, 0.1)
        assert vector == list(array("f", [3 / length, 2 / length, 0.1 / length]))  # each a float32, told in full
        for body in ({"model": "me"}, {"model": "me", "prompt": ""}, {"model": "me", "input": "a"}):
            assert (await h.client.post("/api/embeddings", body)).body == b'{"embedding":[]}'


def test_numbers_give_the_same_float32_again() -> None:
    rng = random.Random(1)
    vector = [rng.uniform(-1, 1) * 10 ** rng.randrange(-12, 1) for _ in range(20_000)]
    texts = ollama_embed._float32(vector)
    assert array("f", map(json.loads, texts)) == array("f", vector)
    assert {len(text.lstrip("-0.").partition("e")[0]) for text in texts} >= {8, 9}
    assert ollama_embed._float32([0.1, -1.0, 0.0, 1e-7]) == ["0.1", "-1", "0", "1e-07"]
