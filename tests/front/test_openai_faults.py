"""/v1/chat/completions: trouble with the engine, and a client that leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperllamad.front import relay
from tests.front.conftest import OpenHouse, wait_until
from tests.front.openai_asks import ASK, CHAT, STREAM
from tests.front.scripted_engine import Asked, Stream, Whole, chat_event, short_chat
from tests.front.sse_client import datas


@pytest.fixture
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "DEATH_KNOWN", 0.05)


@pytest.mark.usefixtures("_little_patience")
@pytest.mark.parametrize("wire", [True, False])
async def test_fails_in_the_middle(house: OpenHouse, wire: bool) -> None:
    """Ollama ends such a stream without a word; here it says why, and ends as streams end."""
    async with house(lambda _: Stream([chat_event("a"), b'data: {"error":"boom"}\n\n']), wire=wire) as h:
        chunk, error, done = datas(await h.client.post(CHAT, STREAM))
        assert chunk["choices"][0]["delta"]["content"] == "a"
        text = "an error was encountered while running the model: Scripted: boom"
        assert error == {"error": {"message": text, "type": "api_error", "param": None, "code": None}}
        assert done == "[DONE]"
        await h.wait_idle()


@pytest.mark.usefixtures("_little_patience")
@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (Whole(400, b'{"error":{"message":"too long","type":"x","code":400}}'), 400, "too long"),
        (Whole(422, b'{"object":"error","message":"no such field"}'), 422, "no such field"),
        (Whole(500, b"plain words"), 500, "plain words"),
        (Whole(500, b'{"detail":5}'), 500, '{"detail":5}'),
        (Stream([b'data: {"error":{"message":"boom","code":501}}\n\n']), 501, "boom"),
    ],
)
async def test_fails_before_the_first_token(house: OpenHouse, answer: Any, status: int, text: str) -> None:
    """The engine's words, without the JSON around them that Ollama shows."""
    async with house(lambda _: answer) as h:
        for asked in (ASK, STREAM):
            reply = await h.client.post(CHAT, asked)
            assert (reply.status, reply.json()["error"]["message"]) == (status, text)
        await h.wait_idle()


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"n": 2}])
async def test_an_engine_that_dies_unheard_is_replaced(house: OpenHouse, fields: dict[str, Any]) -> None:
    """Nobody has seen anything of the first answer, so a second one is as good."""
    deaths = iter([True])

    def script(_: Asked) -> Whole | Stream:
        if next(deaths, False):
            h.supervisor.upstream.die("killed")
            return Whole(500, b"")
        return Stream(short_chat("a"))

    async with house(script) as h:
        reply = await h.client.post(CHAT, ASK | fields)
        assert reply.status == 200
        assert "a" in reply.text
        await h.wait_idle()
        assert h.supervisor.taken == 2


async def test_the_client_leaves(house: OpenHouse) -> None:
    never = asyncio.Event()
    async with house(lambda _: Stream([chat_event("a"), never])) as h:
        async with h.client.exchange("POST", CHAT, STREAM) as exchange:
            await exchange.event()
            await exchange.data()
        await wait_until(lambda: bool(h.engine.asked) and h.engine.asked[0].aborted)
        await wait_until(lambda: h.supervisor.open == 0)
