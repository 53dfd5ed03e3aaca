"""heads.py: the head of a stream is made before its engine answers, and is what it would have been otherwise."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.front import heads, relay
from hyperllamad.wire import Wire
from tests.front.conftest import OpenHouse, wait_until
from tests.front.scripted_engine import Asked, Stream, Whole, short_chat

USER = [{"role": "user", "content": "x"}]
ASKS: dict[str, dict[str, Any]] = {
    "/api/chat": {"model": "m", "messages": USER},
    "/api/generate": {"model": "m", "prompt": "x"},
    "/v1/chat/completions": {"model": "m", "messages": USER, "stream": True},
    "/v1/completions": {"model": "m", "prompt": "x", "stream": True},
    "/v1/messages": {"model": "m", "messages": USER, "max_tokens": 5, "stream": True},
    "/v1/responses": {"model": "m", "input": "x", "stream": True},
}
WEB_PAGE = {"Origin": "http://localhost:3000"}
CHAT = "/api/chat"


def says(*words: str) -> Any:
    return lambda _: Stream(short_chat(*words))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to held heads."""
    happened: list[str] = []
    hold, take_back = Wire.hold, Wire.take_back

    async def held(wire: Wire, sending: Awaitable[None]) -> None:
        await hold(wire, sending)
        happened.append("held")

    def taken(wire: Wire) -> None:
        take_back(wire)
        happened.append("taken back")

    monkeypatch.setattr(Wire, "hold", held)
    monkeypatch.setattr(Wire, "take_back", taken)
    monkeypatch.setattr(relay, "DEATH_KNOWN", 0.05)
    return happened


async def packet(path: Path, asked: str, body: dict[str, Any]) -> tuple[bytes, asyncio.StreamWriter]:
    """What comes first, as it comes, and the connection."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    data = json.dumps(body).encode()
    writer.write(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (asked.encode(), len(data)))
    writer.write(data)
    return await reader.read(65536), writer


@pytest.mark.parametrize("path", ASKS)
async def test_it_is_made_while_the_engine_thinks_and_leaves_with_the_first_token(
    house: OpenHouse, seen: list[str], path: str
) -> None:
    thinks = asyncio.Event()
    async with house(lambda _: Stream([thinks, *short_chat("Paris")])) as h:
        asking = asyncio.create_task(packet(h.socket, path, ASKS[path]))
        await wait_until(lambda: seen)
        assert not asking.done()
        thinks.set()
        first, writer = await asking
        assert first.startswith(b"HTTP/1.1 200 \r\n")
        assert b"Paris" in first
        writer.close()
        await h.wait_idle()
    assert seen == ["held"]


@pytest.mark.parametrize("headers", [{}, WEB_PAGE])
@pytest.mark.parametrize("path", ASKS)
async def test_it_says_what_it_would_have_said_later(
    house: OpenHouse, seen: list[str], path: str, headers: dict[str, str]
) -> None:
    replies = []
    for wire in (True, False):
        async with house(says("a", "b"), wire=wire) as h:
            replies.append(await h.client.post(path, ASKS[path], headers=headers))
    early, late = replies
    assert early.status == late.status == 200
    assert [h for h in early.headers if h[0] != "date"] == [h for h in late.headers if h[0] != "date"]
    assert seen == ["held"]


@pytest.mark.parametrize("path", ASKS)
async def test_an_error_takes_its_place(house: OpenHouse, seen: list[str], path: str) -> None:
    async with house(lambda _: Whole(500, b"no such luck")) as h:
        reply = await h.client.post(path, ASKS[path])
        assert reply.status == 500
        assert "no such luck" in reply.text
        assert reply.header("content-type") != "application/x-ndjson"
        await h.wait_idle()
    assert seen == ["held", "taken back"]


async def test_the_connection_is_as_good_as_before(house: OpenHouse, seen: list[str]) -> None:
    answers = iter([Stream([], cut=True), Stream(short_chat("Paris"))])
    async with house(lambda _: next(answers)) as h:
        first, writer = await packet(h.socket, CHAT, ASKS[CHAT])
        assert first.startswith(b"HTTP/1.1 500 \r\n")
        assert b"the answer was cut off" in first
        data = json.dumps(ASKS[CHAT]).encode()
        writer.write(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))
        await wait_until(lambda: len(seen) == 3)
        writer.close()
        await h.wait_idle()
        assert h.engine.asked[1].finished or h.engine.asked[1].aborted
    assert seen == ["held", "taken back", "held"]


async def test_an_engine_that_is_asked_in_place_of_a_dead_one_finds_it_made(house: OpenHouse, seen: list[str]) -> None:
    async with house(says("never")) as h:

        def script(_: Asked) -> Stream:
            if len(h.engine.asked) > 1:
                return Stream(short_chat("Paris"))
            h.supervisor.upstream.die("it was shot")
            return Stream([], cut=True)

        h.engine.script = script
        reply = await h.client.post(CHAT, ASKS[CHAT])
        assert reply.status == 200
        assert reply.lines()[0]["message"]["content"] == "Paris"
        assert len(h.engine.asked) == 2
        await h.wait_idle()
    assert seen == ["held"]


@pytest.mark.parametrize("path", ASKS)
async def test_nothing_of_it_is_left_for_the_collector(
    house: OpenHouse, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    made = heads.Head.__init__

    def noted(head: heads.Head, *args: Any) -> None:
        made(head, *args)
        alive.add(head)

    monkeypatch.setattr(heads.Head, "__init__", noted)
    gc.disable()
    try:
        async with house(says("a")) as h:
            assert (await h.client.post(path, ASKS[path])).status == 200
            await h.wait_idle()
            await wait_until(lambda: not alive)
    finally:
        gc.enable()


async def test_an_answer_that_is_no_stream_has_none(house: OpenHouse, seen: list[str]) -> None:
    async with house(says("a")) as h:
        reply = await h.client.post(CHAT, ASKS[CHAT] | {"stream": False})
        assert reply.header("content-length")
    assert seen == []
