"""/api/chat and /api/generate over what the three engines really streamed, line by line and whole."""

from __future__ import annotations

import asyncio
import re

import pytest

from hyperllamad.front import relay
from tests.front.conftest import OpenHouse, wait_until
from tests.front.ollama_asks import CHAT, COMPLETION, METRICS, ask
from tests.front.scripted_engine import DONE, USAGE, Stream, Whole, by_path, chat_event, events, recording, short_chat

ENGINES = ("llama_cpp", "vllm", "max")
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,8}[1-9]|\.[1-9])?Z")


@pytest.mark.parametrize("wire", [True, False])
@pytest.mark.parametrize("name", ENGINES)
async def test_chat_stream(house: OpenHouse, name: str, wire: bool) -> None:
    async with house(by_path({CHAT: Stream(events(recording(f"{name}-chat")))}), wire=wire) as h:
        reply = await h.client.post("/api/chat", ask())
        assert reply.status == 200
        assert reply.header("content-type") == "application/x-ndjson"
        assert reply.header("transfer-encoding") == "chunked"
        *tokens, last = reply.lines()
        assert [line["message"]["content"] for line in tokens] == [
            "The",
            " capital",
            " of",
            " France",
            " is",
            " Paris",
            ".",
        ]
        for line in tokens:
            assert list(line) == ["model", "created_at", "message", "done"]
            assert list(line["message"]) == ["role", "content"]
            assert (line["model"], line["message"]["role"], line["done"]) == ("m", "assistant", False)
            assert UTC.fullmatch(line["created_at"])
        assert list(last) == ["model", "created_at", "message", "done", "done_reason", *METRICS]
        assert last["message"] == {"role": "assistant", "content": ""}
        assert (last["done"], last["done_reason"]) == (True, "stop")
        assert (last["prompt_eval_count"], last["eval_count"]) == (27, 8)
        assert all(last[key] > 0 for key in METRICS)
        await h.wait_idle()
        assert h.engine.asked[0].finished


@pytest.mark.parametrize("name", ENGINES)
async def test_chat_whole(house: OpenHouse, name: str) -> None:
    async with house(by_path({CHAT: Stream([recording(f"{name}-chat")])})) as h:
        reply = await h.client.post("/api/chat", ask(stream=False))
        assert (reply.status, reply.header("content-type")) == (200, "application/json; charset=utf-8")
        assert int(reply.header("content-length") or 0) == len(reply.body)
        assert not reply.body.endswith(b"\n")
        found = reply.json()
        assert list(found) == ["model", "created_at", "message", "done", "done_reason", *METRICS]
        assert found["message"] == {"role": "assistant", "content": "The capital of France is Paris."}
        assert (found["prompt_eval_count"], found["eval_count"]) == (27, 8)


async def test_durations_are_the_engines_own(house: OpenHouse) -> None:
    for name, prompt, answer in (
        ("llama_cpp", 2242.723, 3575.84),
        ("vllm", 113.39412999996057 - 0.02993500038428465, 427.02),
    ):
        async with house(by_path({CHAT: Stream([recording(f"{name}-chat")])})) as h:
            found = (await h.client.post("/api/chat", ask(stream=False))).json()
            assert found["prompt_eval_duration"] == pytest.approx(prompt * 1e6, abs=10)
            assert found["eval_duration"] == pytest.approx(answer * 1e6, rel=1e-4)
            (h.socket.parent / "engine").unlink()


@pytest.mark.parametrize("name", ENGINES)
async def test_raw_generate_with_logprobs(house: OpenHouse, name: str) -> None:
    script = by_path({COMPLETION: Stream([recording(f"{name}-completion-logprobs")])})
    async with house(script) as h:
        asked = {"model": "m", "prompt": "Once upon a time", "raw": True, "logprobs": True, "top_logprobs": 2}
        found = (await h.client.post("/api/generate", asked | {"stream": False})).json()
        keys = ["model", "created_at", "response", "done", "done_reason", *METRICS, "logprobs"]
        assert list(found) == keys
        assert (found["response"], found["done_reason"]) == (", the city", "length")
        assert [item["token"] for item in found["logprobs"]] == [",", " the", " city"]
        for item in found["logprobs"]:
            assert bytes(item["bytes"]).decode() == item["token"]
            assert item["logprob"] < 0
            assert [list(top) for top in item["top_logprobs"]] == [["token", "logprob", "bytes"]] * 2
        *tokens, last = (await h.client.post("/api/generate", asked)).lines()
        assert [line["logprobs"][0]["token"] for line in tokens] == [",", " the", " city"]
        assert "logprobs" not in last
        sent = h.engine.asked[0].body
        assert (sent["prompt"], sent["logprobs"], sent["model"]) == ("Once upon a time", 2, h.supervisor.upstream.name)


@pytest.mark.parametrize("name", ENGINES)
async def test_chat_with_logprobs(house: OpenHouse, name: str) -> None:
    async with house(by_path({CHAT: Stream([recording(f"{name}-chat-logprobs")])})) as h:
        *tokens, last = (await h.client.post("/api/chat", ask(logprobs=True, top_logprobs=2))).lines()
        assert [(line["message"]["content"], line["logprobs"][0]["token"]) for line in tokens] == [
            ("Hello", "Hello"),
            (" there", " there"),
            ("!", "!"),
        ]
        assert list(tokens[0]) == ["model", "created_at", "message", "done", "logprobs"]
        assert last["done_reason"] == "length"


@pytest.mark.parametrize("name", ENGINES)
async def test_no_alternatives_unless_asked_for(house: OpenHouse, name: str) -> None:
    """llama.cpp is always asked for one, because with none it tells no logprobs at all."""
    for path, text in (("/api/chat", "chat"), ("/api/generate", "completion")):
        script = by_path({CHAT: Stream([recording(f"{name}-{text}-logprobs")]), COMPLETION: Stream([])})
        if text == "completion":
            script = by_path({COMPLETION: Stream([recording(f"{name}-{text}-logprobs")])})
        async with house(script) as h:
            asked = ask(logprobs=True) | {"prompt": "x", "raw": True}
            found = (await h.client.post(path, asked | {"stream": False})).json()
            assert [list(item) for item in found["logprobs"]] == [["token", "logprob", "bytes"]] * 3
            *tokens, _ = (await h.client.post(path, asked)).lines()
            assert [list(line["logprobs"][0]) for line in tokens] == [["token", "logprob", "bytes"]] * 3
            one = (await h.client.post(path, asked | {"stream": False, "top_logprobs": 1})).json()
            assert {len(item["top_logprobs"]) for item in one["logprobs"]} == {1}
            (h.socket.parent / "engine").unlink()


async def test_text_is_escaped_as_go_does(house: OpenHouse) -> None:
    words = ["<b>&", "\u2028é😀", '"\\\n\x01']
    async with house(by_path({CHAT: Stream(short_chat(*words))})) as h:
        reply = await h.client.post("/api/chat", ask())
        assert b'"content":"\\u003cb\\u003e\\u0026"' in reply.body
        assert '"content":"\\u2028é😀"'.encode() in reply.body
        assert b'"content":"\\"\\\\\\n\\u0001"' in reply.body
        whole = await h.client.post("/api/chat", ask(stream=False))
        assert whole.json()["message"]["content"] == "".join(words)
        assert b"\\u003cb\\u003e\\u0026" in whole.body


async def test_lines_that_arrive_together_leave_together(house: OpenHouse) -> None:
    script = by_path({CHAT: Stream([b"".join(short_chat(*"abcdef"))])})
    async with house(script) as h, h.client.exchange("POST", "/api/chat", ask()) as exchange:
        await exchange.event()
        piece = await exchange.data()
        assert piece.count(b"\n") == 6


@pytest.mark.parametrize("wire", [True, False])
@pytest.mark.parametrize("size", [1, 2, 7, 64])
async def test_events_cut_anywhere(house: OpenHouse, size: int, wire: bool) -> None:
    data = recording("max-chat").replace(b"\n", b"\r\n") + b": a comment\r\n\r\n"
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    async with house(by_path({CHAT: Stream(pieces)}), wire=wire) as h:
        lines = (await h.client.post("/api/chat", ask())).lines()
        assert "".join(line["message"]["content"] for line in lines) == "The capital of France is Paris."
        assert lines[-1]["done"]


async def test_every_line_comes_when_its_token_does(house: OpenHouse) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    pieces: list[bytes | asyncio.Event] = []
    for word, gate in zip("abc", gates, strict=True):
        pieces += [chat_event(word), gate]
    script = by_path({CHAT: Stream([*pieces, chat_event(finish_reason="stop"), USAGE, DONE])})
    async with house(script) as h, h.client.exchange("POST", "/api/chat", ask()) as exchange:
        await exchange.event()
        for word, gate in zip("abc", gates, strict=True):
            assert f'"content":"{word}"'.encode() in await exchange.data()
            gate.set()
        assert b'"done":true' in await exchange.data()
        assert await exchange.data() == b""


async def test_thinking(house: OpenHouse) -> None:
    pieces = [
        chat_event(role="assistant", content=""),
        chat_event(reasoning="Let me"),
        chat_event(reasoning_content=" see"),
        *short_chat("Paris"),
    ]
    async with house(by_path({CHAT: Stream(pieces)})) as h:
        lines = (await h.client.post("/api/chat", ask(model="mk"))).lines()
        assert [line["message"] for line in lines] == [
            {"role": "assistant", "content": "", "thinking": "Let me"},
            {"role": "assistant", "content": "", "thinking": " see"},
            {"role": "assistant", "content": "Paris"},
            {"role": "assistant", "content": ""},
        ]
        whole = (await h.client.post("/api/chat", ask(model="mk", stream=False))).json()
        assert whole["message"] == {"role": "assistant", "content": "Paris", "thinking": "Let me see"}
        generated = (await h.client.post("/api/generate", {"model": "mk", "prompt": "x"})).lines()
        assert generated[0]["thinking"] == "Let me"
        assert list(generated[0]) == ["model", "created_at", "response", "thinking", "done"]
        assert h.engine.asked[0].body["chat_template_kwargs"] == {"enable_thinking": True}


def call_piece(index: int, *, id: str | None = None, name: str | None = None, arguments: str = "") -> bytes:  # noqa: A002
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return chat_event(
        tool_calls=[{"index": index, **({"id": id} if id else {}), "type": "function", "function": function}]
    )


async def test_tool_calls_come_whole_in_lines_of_their_own(house: OpenHouse) -> None:
    pieces = [
        chat_event("I look."),
        call_piece(0, id="call_a", name="weather", arguments='{"city": "P'),
        call_piece(0, arguments='aris", "n": 1}'),
        call_piece(1, name="time"),
        chat_event(finish_reason="tool_calls"),
        USAGE,
        DONE,
    ]
    async with house(by_path({CHAT: Stream(pieces)})) as h:
        text, first, second, last = (
            await h.client.post("/api/chat", ask(model="mt", tools=[{"function": {"name": "f"}}]))
        ).lines()
        assert text["message"]["content"] == "I look."
        assert first["message"]["tool_calls"] == [
            {"id": "call_a", "function": {"index": 0, "name": "weather", "arguments": {"city": "Paris", "n": 1}}}
        ]
        assert (first["message"]["content"], first["done"]) == ("", False)
        (call,) = second["message"]["tool_calls"]
        assert re.fullmatch(r"call_[a-z0-9]{8}", call["id"])
        assert call["function"] == {"index": 1, "name": "time", "arguments": {}}
        assert (last["done"], last["done_reason"], last["message"]) == (
            True,
            "stop",
            {"role": "assistant", "content": ""},
        )
        whole = (await h.client.post("/api/chat", ask(model="mt", stream=False))).json()
        assert [c["function"]["name"] for c in whole["message"]["tool_calls"]] == ["weather", "time"]


async def test_a_call_that_is_none_is_shown_as_text(house: OpenHouse) -> None:
    pieces = [call_piece(0, name="f", arguments="[1"), chat_event(finish_reason="tool_calls"), USAGE, DONE]
    async with house(by_path({CHAT: Stream(pieces)})) as h:
        text, last = (await h.client.post("/api/chat", ask(model="mt"))).lines()
        assert text["message"] == {"role": "assistant", "content": "f([1)"}
        assert last["done"]


async def test_content_beside_the_finish_reason_is_kept(house: OpenHouse) -> None:
    async with house(by_path({CHAT: Stream([chat_event("all", finish_reason="length"), DONE])})) as h:
        first, last = (await h.client.post("/api/chat", ask())).lines()
        assert first["message"]["content"] == "all"
        assert (last["done_reason"], last["eval_count"]) == ("length", 1)
        assert "prompt_eval_count" not in last  # zero, and Go leaves zeros out


async def test_the_books_by_which_a_stuck_engine_is_known(house: OpenHouse) -> None:
    """Waiting while the engine is to speak; pieces as they come; over at the end."""
    go_on = asyncio.Event()
    first, *rest = short_chat("a", "b")
    async with house(lambda _: Stream([first, go_on, *rest])) as h, h.client.exchange("POST", "/api/chat", ask()) as x:
        await x.event()
        await x.data()
        (work,) = h.supervisor.upstream.works
        await wait_until(lambda: work.waiting)
        assert (work.pieces, work.over) == (1, False)
        assert work.size > 50
        go_on.set()
        while await x.data():
            pass
        await h.wait_idle()
        assert (work.pieces, work.waiting, work.over) == (4, False, True)
        assert h.supervisor.upstream.suspicions == 0


async def test_what_is_no_answer_raises_a_suspicion(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "DEATH_KNOWN", 0.05)
    async with house(lambda _: Whole(500, b'{"error": "boom"}')) as h:
        assert (await h.client.post("/api/chat", ask())).status == 500
        await h.wait_idle()
        assert h.supervisor.upstream.suspicions == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_repeats_itself_still_ends(house: OpenHouse, *, stream: bool) -> None:
    """Ollama breaks off after thirty equal tokens, without a last line, over which its own JavaScript client throws."""
    async with house(lambda _: Stream(short_chat(*["la"] * 40))) as h:
        reply = await h.client.post("/api/chat", ask(stream=stream))
        last = reply.lines()[-1] if stream else reply.json()
        assert (last["done"], last["done_reason"]) == (True, "stop")
        said = [line["message"]["content"] for line in reply.lines()] if stream else [last["message"]["content"]]
        assert "".join(said) == "la" * 40
