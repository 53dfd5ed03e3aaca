"""What the tests of /v1/chat/completions ask, and ways to see what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Asked, Stream, short_chat

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "x"}
ASK: dict[str, Any] = {"model": "m", "messages": [USER]}
STREAM = ASK | {"stream": True}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "clock"}}


def says(*words: str) -> Callable[[Asked], Stream]:
    return lambda _: Stream(short_chat(*words))


async def body_for(house: OpenHouse, **fields: Any) -> dict[str, Any]:
    """What the engine was asked for a request with these fields."""
    async with house(says("a")) as h:
        reply = await h.client.post(CHAT, ASK | fields)
        assert reply.status == 200, reply.text
        return h.engine.asked[0].body


async def refusal(house: OpenHouse, path: str = CHAT, **fields: Any) -> tuple[int, str]:
    async with house(says("a")) as h:
        reply = await h.client.post(path, ASK | fields)
        assert h.engine.asked == [], "refused before anything was sent"
        error = reply.json()["error"]
        assert list(error) == ["message", "type", "param", "code"]
        await h.wait_idle()
        return reply.status, error["message"]
