"""/v1/rerank over a scripted engine: pairs judged, vectors compared, order, limits, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from hyperllamad.core.models import Capability
from tests.front import fake_supervisor as fakes
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Answer, Asked, Whole

EMBEDS = frozenset({Capability.EMBEDDING})
MODELS = (
    fakes.model("r", capabilities=EMBEDS, info={"bert.pooling_type": 4}),
    fakes.model("h", capabilities=EMBEDS, architecture="XLMRobertaForSequenceClassification"),
    fakes.model("e", capabilities=EMBEDS),
    fakes.model("m"),
)
LOGITS = {"no": -800.0, "maybe": 0.0, "yes": 3.0}
VECTORS = {"q": [2.0, 0.0], "no": [-1.0, 0.0], "maybe": [0.0, 5.0], "yes": [3.0, 4.0]}
DOCUMENTS = ["no", {"text": "yes"}, "maybe"]


def engine(asked: Asked) -> Answer:
    if asked.path == "/v1/embeddings":
        data = [{"index": i, "embedding": VECTORS[text]} for i, text in enumerate(asked.body["input"])]
        return Whole(200, json.dumps({"data": data, "usage": {"prompt_tokens": 9}}).encode())
    results = [{"index": i, "relevance_score": LOGITS[text]} for i, text in enumerate(asked.body["documents"])]
    return Whole(200, json.dumps({"results": results[::-1], "usage": {"total_tokens": 7}}).encode())


async def rerank(house: OpenHouse, **body: Any) -> tuple[Any, list[Asked]]:
    for model in MODELS:
        if model.name.model == body["model"]:
            break
    async with house(engine, models=(model, *MODELS)) as h:
        reply = await h.client.post("/v1/rerank", {"query": "q", "documents": DOCUMENTS, **body})
        await h.wait_idle()
    return reply, h.engine.asked


def scores(reply: Any) -> list[tuple[int, float]]:
    return [(item["index"], item["relevance_score"]) for item in reply.json()["results"]]


@pytest.mark.parametrize("model", ["r", "h"])
async def test_a_model_that_judges_pairs_is_asked_and_logits_become_probabilities(house: OpenHouse, model: str) -> None:
    reply, asked = await rerank(house, model=model)
    assert (reply.status, reply.header("content-type")) == (200, "application/json")
    assert scores(reply) == [(1, pytest.approx(1 / (1 + math.exp(-3)))), (2, 0.5), (0, 0.0)]
    assert reply.json()["model"] == model
    assert reply.json()["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert asked[0].body == {
        "query": "q",
        "documents": ["no", "yes", "maybe"],
        "model": MODELS[0].digest[:12],
    }


async def test_a_model_that_embeds_compares_vectors(house: OpenHouse) -> None:
    reply, asked = await rerank(house, model="e")
    assert scores(reply) == [(1, pytest.approx(0.6)), (2, 0), (0, -1)]
    assert (asked[0].path, asked[0].body["input"]) == ("/v1/embeddings", ["q", "no", "yes", "maybe"])
    assert reply.json()["usage"]["total_tokens"] == 9


async def test_the_first_few_and_their_texts(house: OpenHouse) -> None:
    reply, _ = await rerank(house, model="e", top_n=2, return_documents=True)
    assert [(item["index"], item["document"]) for item in reply.json()["results"]] == [
        (1, {"text": "yes"}),
        (2, {"text": "maybe"}),
    ]
    reply, _ = await rerank(house, model="e", top_n=99)
    assert len(reply.json()["results"]) == 3 and "document" not in reply.json()["results"][0]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"model": "m"}, 400, '"m" does not support rerank (ask a reranker, or an embedding model)'),
        ({"model": ""}, 400, "model is required"),
        ({"model": "none"}, 404, "model 'none' not found"),
        ({"model": "e", "query": ""}, 400, "query is required"),
        ({"model": "e", "documents": []}, 400, "documents must be a list of at least one text"),
        ({"model": "e", "documents": "x"}, 400, "documents must be a list of at least one text"),
        ({"model": "e", "documents": ["x", 1]}, 400, "each of the documents must be a text, or an object with a text"),
        ({"model": "e", "documents": [{}]}, 400, "each of the documents must be a text, or an object with a text"),
        ({"model": "e", "top_n": 0}, 400, "top_n must be at least 1"),
        ({"model": "e", "top_n": "x"}, 400, "RerankRequest.top_n of type int"),
    ],
)
async def test_what_is_wrong(house: OpenHouse, body: dict[str, Any], status: int, says: str) -> None:
    reply, asked = await rerank(house, **body)
    assert (reply.status, says in reply.json()["error"]["message"], asked) == (status, True, [])


@pytest.mark.parametrize("answer", [b"{", b'{"results":[]}', b'{"results":[{"index":7,"relevance_score":1}]}'])
async def test_nonsense_from_the_engine_is_said(house: OpenHouse, answer: bytes) -> None:
    async with house(lambda _: Whole(200, answer), models=MODELS) as h:
        reply = await h.client.post("/v1/rerank", {"model": "r", "query": "q", "documents": ["a"]})
        await h.wait_idle()
    assert (reply.status, "Scripted" in reply.json()["error"]["message"]) == (500, True)
