"""A large body is read beside everybody else's work, and one that is spoilt holds nobody up."""

from __future__ import annotations

import threading

import anyio
import anyio.to_thread
import pytest

from hyperllamad.front import body, gosyntax
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Stream, short_chat

SPOILT = b'{"model": "m", "messages": [' + b"1," * body.LARGE


@pytest.mark.parametrize("route", ["/api/chat", "/v1/chat/completions"])
async def test_others_are_answered_while_it_is_read(
    house: OpenHouse, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answered = threading.Event(), threading.Event()
    value_end = gosyntax.value_end

    def slow(data: bytes) -> int:
        begun.set()
        assert answered.wait(10), "nobody was answered meanwhile"
        return value_end(data)

    monkeypatch.setattr(gosyntax, "value_end", slow)
    async with house(lambda _: Stream(short_chat("Hi"))) as h, anyio.create_task_group() as tasks:

        async def spoil() -> None:
            reply = await h.client.post(route, raw=SPOILT)
            assert (reply.status, "unexpected EOF" in reply.text) == (400, True)

        tasks.start_soon(spoil)
        await anyio.to_thread.run_sync(begun.wait)
        assert (await h.client.get("/api/version")).status == 200
        answered.set()
    assert answered.is_set()


async def test_one_that_is_sound_is_answered(house: OpenHouse) -> None:
    async with house(lambda _: Stream(short_chat("Hi"))) as h:
        said = "a" * body.LARGE
        asked = {"model": "m", "messages": [{"role": "user", "content": said}], "stream": False}
        assert (await h.client.post("/api/chat", asked)).json()["message"]["content"] == "Hi"
        assert h.engine.asked[0].body["messages"][0]["content"] == said
