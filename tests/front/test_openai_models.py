"""/v1/models and /v1/embeddings."""

from __future__ import annotations

import base64
import json
import math
import struct
from dataclasses import replace
from typing import Any

import pytest

from hyperllamad.core.names import ModelName
from tests.front import fake_supervisor as fakes
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Asked, Stream, Whole, by_path

NOTHING = by_path({})
PATH = "/v1/embeddings"
ASK: dict[str, Any] = {"model": "me", "input": "a"}


def vectors(asked: Asked) -> Whole:
    """[3, 4] for the first text, [6, 8] for the second, and so on, in the wrong order."""
    items = [
        f'{{"object":"embedding","index":{i},"embedding":[{3 * (i + 1)},{4 * (i + 1)},0]}}'
        for i in range(len(asked.body["input"]))
    ]
    data = f'{{"object":"list","data":[{",".join(reversed(items))}],"usage":{{"prompt_tokens":5,"total_tokens":5}}}}'
    return Whole(200, data.encode())


async def test_models(house: OpenHouse) -> None:
    foreign = replace(fakes.model("x"), name=ModelName.parse("hf.co/org/x:q4"), context=512)
    async with house(NOTHING, models=(fakes.model("m"), foreign)) as h:
        reply = await h.client.get("/v1/models")
        assert reply.header("content-type") == "application/json"
        assert reply.json() == {
            "object": "list",
            "data": [
                {
                    "id": "m:latest",
                    "object": "model",
                    "created": 1763750000,
                    "owned_by": "library",
                    "context_length": 8192,
                },
                {
                    "id": "hf.co/org/x:q4",
                    "object": "model",
                    "created": 1763750000,
                    "owned_by": "org",
                    "context_length": 512,
                },
            ],
        }


async def test_no_models(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ollama says null, over which every client that loops falls (case 104)."""
    monkeypatch.setattr(fakes.FakeCatalog, "list", lambda _: ())
    async with house(NOTHING) as h:
        assert (await h.client.get("/v1/models")).body == b'{"object":"list","data":[]}\n'


async def test_one_model(house: OpenHouse) -> None:
    async with house(NOTHING) as h:
        assert (await h.client.get("/v1/models/M")).json()["id"] == "M", "as it was asked for"
        unknown = await h.client.get("/v1/models/nope")
        assert (unknown.status, unknown.json()["error"]["type"]) == (404, "not_found_error")
        assert unknown.json()["error"]["message"] == "model 'nope:latest' not found"
        assert (await h.client.get("/v1/models/a/b")).text == "404 page not found"
        assert (await h.client.post("/v1/models")).status == 405


async def test_embeddings(house: OpenHouse) -> None:
    async with house(vectors) as h:
        found = (await h.client.post(PATH, ASK | {"input": ["a", ""], "user": "u"})).json()
        one, two = found["data"]
        assert (one["object"], one["index"], two["index"]) == ("embedding", 0, 1)
        assert one["embedding"] == two["embedding"] == pytest.approx([0.6, 0.8, 0])
        assert found["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
        assert (found["object"], found["model"]) == ("list", "me")
        assert h.engine.asked[0].body["input"] == ["a", ""]
        await h.wait_idle()


async def test_base64_is_the_same(house: OpenHouse) -> None:
    async with house(vectors) as h:
        numbers = (await h.client.post(PATH, ASK)).json()["data"][0]["embedding"]
        text = (await h.client.post(PATH, ASK | {"encoding_format": "base64"})).json()["data"][0]["embedding"]
        raw = base64.b64decode(text)
        assert raw == struct.pack("<3f", *numbers)
        assert math.hypot(*struct.unpack("<3f", raw)) == pytest.approx(1, abs=1e-6)


async def test_dimensions(house: OpenHouse) -> None:
    """Cut, then of length 1 again; more than there are change nothing."""
    async with house(vectors) as h:
        assert (await h.client.post(PATH, ASK | {"dimensions": 1})).json()["data"][0]["embedding"] == [1.0]
        assert len((await h.client.post(PATH, ASK | {"dimensions": 9})).json()["data"][0]["embedding"]) == 3


async def test_a_text_that_is_too_long_is_cut(house: OpenHouse) -> None:
    """As Ollama does; a token is a word here, and the context holds 2048."""

    def script(asked: Asked) -> Whole:
        if asked.path == "/tokenize":
            return Whole(200, json.dumps({"tokens": [1] * len(asked.body["content"].split())}).encode())
        if any(len(text.split()) > 2046 for text in asked.body["input"]):
            return Whole(400, b'{"error":{"message":"too long"}}')
        return vectors(asked)

    async with house(script, engine=fakes.FakeEngine(tokenize="/tokenize")) as h:
        reply = await h.client.post(PATH, ASK | {"input": ["a " * 5000, "b"]})
        assert (reply.status, len(reply.json()["data"])) == (200, 2)
        cut, kept = h.engine.asked[-1].body["input"]
        assert (2000 < len(cut.split()) <= 2046, kept) == (True, "b")


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"input": None}, 400, "invalid input"),
        ({"input": []}, 400, "invalid input"),
        ({"input": [1]}, 400, "invalid input type"),
        ({"input": {"a": 1}}, 400, "invalid input type"),
        (
            {"encoding_format": "x"},
            400,
            "Invalid value for 'encoding_format' = x. Supported values: ['float', 'base64'].",
        ),
        ({"model": ""}, 404, "model '' not found"),
        ({"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
        ({"model": "m"}, 400, '"m" does not support embeddings (ask a model that has the capability embedding)'),
    ],
)
async def test_refused(house: OpenHouse, fields: dict[str, Any], status: int, text: str) -> None:
    async with house(vectors) as h:
        reply = await h.client.post(PATH, ASK | fields)
        assert (reply.status, reply.json()["error"]["message"]) == (status, text)
        assert h.engine.asked == []
        await h.wait_idle()


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (Whole(400, b'{"error":{"message":"too long"}}'), 400, "too long"),
        (Whole(200, b'{"data":[]}'), 500, "Scripted gave 0 vectors for 1 texts"),
        (Whole(200, b"{"), 500, "Scripted sent what cannot be read: Input data was truncated"),
        (Stream([b'{"da'], cut=True), 500, "an error was encountered while running the model: Scripted: the answer"),
    ],
)
async def test_the_engine_fails(
    house: OpenHouse, answer: Any, status: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperllamad.front.relay.DEATH_KNOWN", 0.05)
    async with house(lambda _: answer) as h:
        reply = await h.client.post(PATH, ASK)
        assert reply.status == status
        assert reply.json()["error"]["message"].startswith(text)
        await h.wait_idle()
