"""Bodies that would not fit into memory together: large ones wait for others to end, small ones always pass."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperllamad.front import intake
from tests.front.conftest import House, OpenHouse, wait_until
from tests.front.scripted_engine import Asked, Stream, short_chat
from tests.front.store.asks import digest

LARGE = 2 << 20


def chat(size: int) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "x" * size}], "stream": False}


async def in_chunks(h: House, size: int) -> bytes:
    """The answer to a body that comes in chunks."""
    reader, writer = await asyncio.open_unix_connection(str(h.socket))
    writer.write(
        b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    text = b'{"model": "m", "messages": [], "system": "' + b"x" * size + b'"}'
    for start in range(0, len(text), 1 << 16):
        piece = text[start : start + (1 << 16)]
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST", 3 << 20)


async def test_large_ones_come_one_after_the_other(house: OpenHouse) -> None:
    gate = asyncio.Event()

    def script(asked: Asked) -> Stream:
        long = len(asked.body["messages"][0]["content"]) >= LARGE
        return Stream([gate, *short_chat("Hi")] if long else short_chat("Hi"))

    async with house(script) as h:
        first = asyncio.create_task(h.client.post("/api/chat", chat(LARGE)))
        await wait_until(lambda: len(h.engine.asked) == 1)
        refused = await h.client.post("/api/chat", chat(LARGE))
        assert (refused.status, refused.header("retry-after")) == (503, "5")
        assert refused.json() == {"error": "too many large requests are being read at once (try again in a moment)"}
        assert b" 503 " in (await in_chunks(h, LARGE)).partition(b"\r\n")[0]
        assert (await h.client.post("/api/chat", chat(10))).status == 200
        gate.set()
        assert (await first).status == 200
        assert (await h.client.post("/api/chat", chat(LARGE))).status == 200
        assert b" 200 " in (await in_chunks(h, LARGE)).partition(b"\r\n")[0]


async def test_uploads_are_not_held(house: OpenHouse) -> None:
    data = bytes(4 << 20)
    async with house(lambda _: Stream(short_chat("Hi"))) as h:
        assert (await h.client.post(f"/api/blobs/{digest(data)}", raw=data)).status == 201
