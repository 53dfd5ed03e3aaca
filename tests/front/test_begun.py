"""Who holds a lease says when the engine has taken the request in: at the head of a stream, before any other answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.front.conftest import OpenHouse, wait_until
from tests.front.scripted_engine import Answer, Asked, Stream, Whole, short_chat

USER = [{"role": "user", "content": "x"}]
STREAMS: dict[str, dict[str, Any]] = {
    "/api/chat": {"model": "m", "messages": USER},
    "/api/generate": {"model": "m", "prompt": "x", "stream": False},
    "/v1/chat/completions": {"model": "m", "messages": USER},
    "/v1/completions": {"model": "m", "prompt": "x", "stream": True},
    "/v1/messages": {"model": "m", "messages": USER, "max_tokens": 5},
    "/v1/responses": {"model": "m", "input": "x", "stream": True},
}


@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_has_begun_with_its_head(house: OpenHouse, path: str) -> None:
    thinks = asyncio.Event()
    async with house(lambda _: Stream([thinks, *short_chat("Paris")])) as h:
        asking = asyncio.create_task(h.client.post(path, STREAMS[path]))
        await wait_until(lambda: h.supervisor.begun)
        assert not asking.done()
        thinks.set()
        assert b"Paris" in (await asking).body
        await h.wait_idle()
        assert h.supervisor.begun == 1


async def test_vectors_are_not_waited_for(house: OpenHouse) -> None:
    begun: list[int] = []
    vector = {"data": [{"index": 0, "embedding": [1.0, 0.0]}], "usage": {"prompt_tokens": 1}}

    def engine(_: Asked) -> Answer:
        begun.append(h.supervisor.begun)
        return Whole(200, json.dumps(vector).encode())

    async with house(engine) as h:
        reply = await h.client.post("/api/embed", {"model": "me", "input": "a"})
        assert reply.status == 200
        assert begun == [1], "its engine answers only when all is done"


async def test_of_one_that_was_refused_nothing_is_told(house: OpenHouse) -> None:
    async with house(lambda _: Whole(400, b'{"error":{"message":"no"}}')) as h:
        reply = await h.client.post("/api/generate", {"model": "m", "prompt": "x"})
        assert reply.status == 400
        await h.wait_idle()
        assert h.supervisor.begun == 0
