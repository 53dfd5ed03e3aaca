"""Engines that fail: before the first byte it is an HTTP error, after it a last line; never a silent end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperllamad.core.errors import BusyError, ClosingError, LoadFailedError
from hyperllamad.front import relay
from tests.front.conftest import House, OpenHouse
from tests.front.scripted_engine import (
    DONE,
    Stream,
    Whole,
    by_path,
    chat_event,
    events,
    recording,
    short_chat,
)

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
WHOLE = ASK | {"stream": False}
UNTOLD = " (the answer could not be continued: Scripted does not tell tokens)"
PREFIX = "an error was encountered while running the model: Scripted: "


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that did not die are told from those that did by waiting: not for 1.5 s each in tests."""
    monkeypatch.setattr(relay, "DEATH_KNOWN", 0.05)


async def stream_error(h: House) -> tuple[list[str], str]:
    """The texts of a stream before its error line, and the error."""
    reply = await h.client.post("/api/chat", ASK)
    assert reply.status == 200
    *tokens, last = reply.lines()
    assert list(last) == ["error"]
    await h.wait_idle()
    return [line["message"]["content"] for line in tokens], last["error"]


MID_STREAM = {
    "cut": (Stream([chat_event("a")], cut=True), "the answer was cut off"),
    "ended without [DONE]": (Stream([chat_event("a")]), "the answer was cut off"),
    "reason but no [DONE]": (Stream([chat_event("a"), chat_event(finish_reason="stop")]), "the answer was cut off"),
    "[DONE] without a reason": (Stream([chat_event("a"), DONE]), "the answer ended without a reason"),
    "aborted": (Stream([chat_event("a"), chat_event(finish_reason="abort"), DONE]), "it gave the answer up (abort)"),
    "half an event": (Stream([chat_event("a"), b'data: {"choices":[{"del']), "the answer was cut off"),
    "garbage": (Stream([chat_event("a"), b"data: \xff\xfe{{{\n\n"]), "it sent what cannot be read: "),
    "wrong types": (Stream([chat_event("a"), b'data: {"choices":5}\n\n']), "it sent what cannot be read: "),
    "an endless line": (Stream([chat_event("a"), *[b"x" * 65536] * 160]), "it sent what cannot be read: an event"),
    "error as a text": (Stream([chat_event("a"), b'data: {"error":"boom"}\n\n', DONE]), "boom"),
    "error of a wrong type": (Stream([chat_event("a"), b'data: {"error":[1]}\n\n']), "it sent what cannot be read: "),
}


@pytest.mark.parametrize("wire", [True, False])
@pytest.mark.parametrize("fault", MID_STREAM)
async def test_fault_in_the_middle(house: OpenHouse, fault: str, wire: bool) -> None:
    answer, text = MID_STREAM[fault]
    async with house(by_path({CHAT: answer}), wire=wire) as h:
        tokens, error = await stream_error(h)
        assert tokens in (["a"], [])  # a connection that is reset takes what was not yet read with it
        assert error.startswith(PREFIX + text)
        whole = await h.client.post("/api/chat", WHOLE)
        assert (whole.status, whole.json()["error"]) == (500, error)


async def test_vllm_whose_worker_was_killed(house: OpenHouse) -> None:
    async with house(by_path({CHAT: Stream(events(recording("vllm-killed")))})) as h:
        tokens, error = await stream_error(h)
        assert len(tokens) == 28
        assert error == "EngineCore encountered an issue. See stack trace (above) for the root cause."
        h.supervisor.upstream.die("its worker was killed by signal 9 (out of memory?)")
        _, error = await stream_error(h)
        assert error == PREFIX + "its worker was killed by signal 9 (out of memory?)" + UNTOLD


async def test_max_whose_worker_was_killed(house: OpenHouse) -> None:
    async with house(by_path({CHAT: Stream(events(recording("max-killed")), cut=True)})) as h:
        asyncio.get_running_loop().call_later(0.02, h.supervisor.upstream.die, "its worker crashed")
        _, error = await stream_error(h)
        assert error == PREFIX + "its worker crashed" + UNTOLD


async def test_streams_cut_on_purpose_say_so(house: OpenHouse) -> None:
    gate = asyncio.Event()
    async with house(by_path({CHAT: Stream([chat_event("a"), gate])})) as h:
        async with h.client.exchange("POST", "/api/chat", ASK) as exchange:
            await exchange.event()
            await exchange.data()
            h.supervisor.upstream.cut("the server is shutting down")
            assert b"the server is shutting down" in await exchange.data()
        await h.wait_idle()
        after = await h.client.post("/api/chat", ASK)  # granted, but nothing can be asked any more
        assert (after.status, after.json()["error"]) == (500, PREFIX + "the server is shutting down")


EARLY = {
    "refused": (Whole(400, b'{"error":{"message":"too long"}}'), 400, '{"error":{"message":"too long"}}'),
    "no words": (Whole(422, b""), 422, "the engine answered 422 without a word"),
    "not found": (Whole(404, b"nothing\n"), 404, "nothing"),
    "internal": (Whole(500, b"Internal Server Error"), 500, "Internal Server Error"),
    "redirect": (Whole(304, b""), 500, "the engine answered 304 without a word"),
    "error event": (
        Stream([b'data: {"error":{"message":"no grammar","code":"400"}}\n\n', DONE]),
        400,
        "no grammar",
    ),
    "error line": (Stream([b'error: {"message":"x"}\n\n']), 500, PREFIX + "the answer was cut off"),
    "cut": (Stream([], cut=True), 500, PREFIX + "the answer was cut off"),
    "role only, then cut": (
        Stream([chat_event("", role="assistant")], cut=True),
        500,
        PREFIX + "the answer was cut off",
    ),
    "garbage": (Stream([b"data: nonsense\n\n"]), 500, PREFIX + "it sent what cannot be read: "),
}


@pytest.mark.parametrize("fault", EARLY)
async def test_fault_before_the_first_byte(house: OpenHouse, fault: str) -> None:
    answer, status, text = EARLY[fault]
    async with house(by_path({CHAT: answer})) as h:
        for asked, content_type in ((ASK, "application/json"), (WHOLE, "application/json; charset=utf-8")):
            reply = await h.client.post("/api/chat", asked)
            assert (reply.status, reply.header("content-type")) == (status, content_type)
            assert list(reply.json()) == ["error"]
            assert reply.json()["error"].startswith(text)
        await h.wait_idle()


async def test_nobody_listens(house: OpenHouse) -> None:
    async with house(by_path({})) as h:
        (h.socket.parent / "engine").unlink()
        h.supervisor.upstream.die("it was killed by signal 9")
        reply = await h.client.post("/api/chat", ASK)
        assert (reply.status, reply.json()["error"]) == (500, PREFIX + "it was killed by signal 9")


@pytest.mark.parametrize(
    ("refusal", "status", "text"),
    [
        (BusyError(), 503, "server busy, please try again.  maximum pending requests exceeded"),
        (ClosingError(), 503, "the server is shutting down (try again in a moment)"),
        (
            LoadFailedError("vLLM could not load m: the GPU has 16 GiB", hint="quantise it"),
            500,
            "vLLM could not load m: the GPU has 16 GiB (quantise it)",
        ),
    ],
)
async def test_no_engine_is_granted(house: OpenHouse, refusal: Any, status: int, text: str) -> None:
    async with house(by_path({})) as h:
        h.supervisor.refusal = refusal
        for asked in (ASK, WHOLE, {"model": "m"}):
            reply = await h.client.post("/api/chat", asked)
            assert (reply.status, reply.json()) == (status, {"error": text})
            assert reply.header("content-type") == "application/json; charset=utf-8"
        await h.wait_idle()


async def test_a_full_queue_says_when_to_come_again(house: OpenHouse) -> None:
    async with house(by_path({})) as h:
        for refusal, header in ((BusyError(retry_after=2.3), "3"), (BusyError(), None)):
            h.supervisor.refusal = refusal
            for path in ("/api/chat", "/v1/chat/completions"):
                reply = await h.client.post(path, ASK)
                assert (reply.status, reply.header("retry-after")) == (503, header)
        await h.wait_idle()


async def test_a_fault_of_ours_is_told_as_one(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(by_path({CHAT: Stream([chat_event("a"), *short_chat("b")])})) as h:
        monkeypatch.setattr("hyperllamad.front.ollama_bodies.chat", lambda *_: 1 / 0)
        reply = await h.client.post("/api/chat", ASK)
        assert (reply.status, list(reply.json())) == (500, ["error"])
        assert "internal error" in reply.json()["error"]
        monkeypatch.undo()
        monkeypatch.setattr("hyperllamad.front.ollama_lines.Lines.last", lambda *_: 1 / 0)
        lines = (await h.client.post("/api/chat", ASK)).lines()
        assert "internal error" in lines[-1]["error"]
        await h.wait_idle()
