"""Chats that are too long: what goes, what stays, how it is said; and a `num_ctx` beyond what runs."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.front import fitting
from tests.front import fake_supervisor as fakes
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Answer, Asked, Stream, Whole, short_chat

WORDS = 10  # of every message below, and one word is one token here
CONTEXT = 64  # tokens; what the answer may take is kept free of it


def words(asked: Asked) -> int:
    return sum(len(message["content"].split()) for message in asked.body["messages"])


class Small:
    """An engine with a context of CONTEXT tokens; `told`: its refusal says how many there were."""

    def __init__(self, *, told: bool) -> None:
        self.told = told

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/tokenize":
            return Whole(200, json.dumps({"tokens": [1] * words(asked)}).encode())
        if (count := words(asked)) > CONTEXT:
            return Whole(400, f"{f'{count} tokens are ' if self.told else ''}too long".encode())
        return Stream(short_chat("a"))


def message(role: str, number: int, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": f"{number} " * WORDS, **more}


def numbers(asked: Asked) -> str:
    return " ".join(message["content"].split()[0] for message in asked.body["messages"])


TURNS = [message("user" if i % 2 == 0 else "assistant", i) for i in range(11)]
WITH_SYSTEM = [message("user", 0), message("system", 1), *TURNS[2:]]
CALL = {"function": {"name": "f", "arguments": {}}}
TOOLS = [
    message("user", 0),
    *(message(role, i) for i, role in enumerate(["assistant", "tool", "tool", "assistant", "tool", "tool", "tool"], 1)),
]

ENGINES = {
    "counting": (fakes.FakeEngine(tokenize="/tokenize"), Small(told=False)),
    "telling": (fakes.FakeEngine(), Small(told=True)),
    "silent": (fakes.FakeEngine(), Small(told=False)),
}


async def asked_with(
    house: OpenHouse, engine: str, messages: list[dict[str, Any]], path: str = "/api/chat", **more: Any
) -> tuple[Any, list[Asked]]:
    fake, script = ENGINES[engine]
    async with house(script, engine=fake) as h:
        h.supervisor.upstream.settings = fakes.replace(h.supervisor.upstream.settings, context=CONTEXT)
        body = {"model": "m", "messages": messages, "stream": False, "max_tokens": 8, "options": {"num_predict": 8}}
        reply = await h.client.post(path, body | more)
        await h.wait_idle()
    return reply, [asked for asked in h.engine.asked if asked.path == "/v1/chat/completions"]


@pytest.mark.parametrize("engine", ["counting", "telling"])
@pytest.mark.parametrize(
    ("messages", "kept"),
    [
        (TURNS, "6 7 8 9 10"),
        (WITH_SYSTEM, "1 8 9 10"),  # system messages stay, however old
        ([*TURNS[:9], message("system", 9), TURNS[10]], "6 7 8 9 10"),
        (TOOLS, "4 5 6 7"),  # results of a call that is gone say nothing, so they go with it
    ],
)
async def test_the_oldest_go_and_it_is_said(
    house: OpenHouse, engine: str, messages: list[dict[str, Any]], kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    reply, asked = await asked_with(house, engine, messages)
    assert reply.status == 200
    assert numbers(asked[-1]) == kept
    dropped = len(messages) - len(kept.split())
    assert reply.header(fitting.DROPPED) == f"dropped={dropped}, context={CONTEXT}"
    (said,) = [r for r in caplog.records if "left out" in r.getMessage()]
    assert (said.levelno, said.fields["dropped"]) == (logging.WARNING, dropped)  # type: ignore[attr-defined]


async def test_an_engine_that_tells_no_count_is_asked_until_it_fits(house: OpenHouse) -> None:
    reply, asked = await asked_with(house, "silent", [message("user", i) for i in range(20)])
    assert reply.status == 200
    assert numbers(asked[-1]).endswith("18 19")
    assert 2 <= len(asked) <= 6


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_every_dialect(house: OpenHouse, path: str, stream: bool) -> None:
    reply, asked = await asked_with(house, "counting", TURNS, path, stream=stream, input=TURNS)
    assert (reply.status, numbers(asked[-1])) == (200, "6 7 8 9 10")
    assert reply.header(fitting.DROPPED) == f"dropped=6, context={CONTEXT}"


async def test_several_answers_are_cut_alike(house: OpenHouse) -> None:
    reply, asked = await asked_with(house, "counting", TURNS, "/v1/chat/completions", n=3)
    assert (len(reply.json()["choices"]), [numbers(one) for one in asked[-3:]]) == (3, ["6 7 8 9 10"] * 3)


async def test_what_fits_is_not_touched_nor_counted(house: OpenHouse) -> None:
    reply, asked = await asked_with(house, "counting", TURNS[:5])
    assert (reply.status, len(asked), numbers(asked[0])) == (200, 1, "0 1 2 3 4")
    assert reply.header(fitting.DROPPED) is None


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_must_stay_and_is_too_long_is_the_engines_refusal(house: OpenHouse, engine: str) -> None:
    long = {"role": "user", "content": "x " * 100}
    reply, asked = await asked_with(house, engine, [message("system", 0), message("user", 1), long])
    assert (reply.status, "too long" in reply.json()["error"]) == (400, True)
    assert len(asked[-1].body["messages"]) == 2, "it was tried"
    reply, asked = await asked_with(house, engine, [long])
    assert (reply.status, len(asked)) == (400, 1)


async def test_truncate_false_and_count_tokens_drop_nothing(house: OpenHouse) -> None:
    reply, asked = await asked_with(house, "counting", TURNS, truncate=False)
    assert (reply.status, len(asked)) == (400, 1)
    reply, _ = await asked_with(house, "counting", TURNS, "/v1/messages/count_tokens")
    assert reply.json() == {"input_tokens": 11 * WORDS}
    reply, asked = await asked_with(house, "telling", TURNS, "/v1/messages/count_tokens")
    assert (reply.status, len(asked)) == (400, 1)


async def test_another_refusal_drops_nothing(house: OpenHouse) -> None:
    async with house(lambda _: Whole(400, b"no such thing")) as h:
        reply = await h.client.post("/api/chat", {"model": "m", "messages": TURNS})
    assert (reply.status, len(h.engine.asked)) == (400, 1)


# -- num_ctx -----------------------------------------------------------------------------------------------------------

CHAT = {"model": "m", "messages": [message("user", 0)], "stream": False}


def talk(_: Asked) -> Answer:
    return Stream(short_chat("a"))


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize(("num_ctx", "says"), [(2048, None), (8, None), (2049, "asked=2049, context=2048")])
async def test_more_than_runs_is_clamped_and_said(
    house: OpenHouse, path: str, num_ctx: int, says: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(talk) as h:
        reply = await h.client.post(path, CHAT | {"prompt": "x", "options": {"num_ctx": num_ctx}})
        loaded = await h.client.post(path, {"model": "m", "options": {"num_ctx": num_ctx}})
        assert h.supervisor.grown == []
    assert (reply.status, reply.header(fitting.CLAMPED)) == (200, says)
    assert loaded.header(fitting.CLAMPED) == says
    assert sum("longer context" in r.getMessage() for r in caplog.records) == (2 if says else 0)


async def test_where_it_may_the_model_grows(house: OpenHouse) -> None:
    async with house(talk, config={"models": {"grow_context": True}}) as h:
        for num_ctx in (1024, 4096, 4096):
            reply = await h.client.post("/api/chat", CHAT | {"options": {"num_ctx": num_ctx}})
            assert (reply.status, reply.header(fitting.CLAMPED)) == (200, None)
        assert h.supervisor.grown == [4096]
        h.supervisor.refusal = LoadFailedError("too little memory")
        reply = await h.client.post("/api/chat", CHAT | {"options": {"num_ctx": 8192}})
        assert (reply.status, h.supervisor.grown) == (500, [4096, 8192, 0])
