"""/v1/chat/completions: what the client is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hyperllamad.front import relay
from tests.front.conftest import OpenHouse, wait_until
from tests.front.openai_asks import ASK, CHAT, CLOCK, STREAM, TOOL, says
from tests.front.scripted_engine import DONE, USAGE, Asked, Stream, Whole, chat_event, events, recording, short_chat
from tests.front.sse_client import calling, cut_short, datas, thinking


# -- the answer --------------------------------------------------------------------------------------------------------
async def test_whole(house: OpenHouse) -> None:
    async with house(says("Hel", "lo <b>")) as h:
        reply = await h.client.post(CHAT, ASK)
        assert reply.header("content-type") == "application/json"
        assert reply.body.endswith(b"}\n")
        assert b"lo \\u003cb\\u003e" in reply.body
        found = reply.json()
        assert found["id"].startswith("chatcmpl-")
        assert (found["model"], found["system_fingerprint"]) == ("m", "fp_ollama")
        message = {"role": "assistant", "content": "Hello <b>"}
        assert found["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
        assert found["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        await h.wait_idle()


@pytest.mark.parametrize("wire", [True, False])
async def test_stream(house: OpenHouse, wire: bool) -> None:
    async with house(says("Hel", "lo"), wire=wire) as h:
        *chunks, done = datas(await h.client.post(CHAT, STREAM))
        assert done == "[DONE]"
        assert [chunk["choices"][0] for chunk in chunks] == [
            {"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None},
            {"index": 0, "delta": {"content": "lo"}, "finish_reason": None},
            {"index": 0, "delta": {}, "finish_reason": "stop"},
        ]
        assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
        assert not any("usage" in chunk for chunk in chunks)


async def test_usage_comes_last_when_wanted(house: OpenHouse) -> None:
    async with house(says("a")) as h:
        *chunks, usage, _ = datas(await h.client.post(CHAT, STREAM | {"stream_options": {"include_usage": True}}))
        assert usage["choices"] == []
        assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        assert not any("usage" in chunk for chunk in chunks)


async def test_an_empty_answer_opens_with_a_role(house: OpenHouse) -> None:
    async with house(says()) as h:
        opening, last, done = datas(await h.client.post(CHAT, STREAM))
        assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert (last["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")


@pytest.mark.parametrize("engine", ["llama_cpp", "vllm", "max"])
async def test_every_engine(house: OpenHouse, engine: str) -> None:
    async with house(lambda _: Stream(events(recording(f"{engine}-chat")))) as h:
        whole = (await h.client.post(CHAT, ASK)).json()["choices"][0]["message"]["content"]
        chunks = datas(await h.client.post(CHAT, STREAM))[:-1]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == whole
        assert "Paris" in whole


async def test_tool_calls(house: OpenHouse) -> None:
    async with house(lambda _: calling()) as h:
        choice = (await h.client.post(CHAT, ASK | {"model": "mt", "tools": [TOOL, CLOCK]})).json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] == "Let me see."
        one, two = choice["message"]["tool_calls"]
        function = {"name": "weather", "arguments": '{"city":"Paris"}'}
        assert one == {"id": "call_one", "index": 0, "type": "function", "function": function}
        assert two["function"] == {"name": "clock", "arguments": '{"zone":"CET"}'}
        assert two["id"].startswith("call_")


async def test_tool_calls_are_streamed_as_they_come(house: OpenHouse) -> None:
    """Ollama waits for whole calls; clients of OpenAI put pieces together, so nothing need wait."""
    async with house(lambda _: calling()) as h:
        chunks = datas(await h.client.post(CHAT, STREAM | {"model": "mt", "tools": [TOOL, CLOCK]}))
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
        pieces = [piece for delta in deltas for piece in delta.get("tool_calls", [])]
        assert [piece["index"] for piece in pieces] == [0, 1, 1]
        assert pieces[0]["id"] == "call_one"
        assert pieces[1]["id"].startswith("call_")
        assert pieces[2] == {"index": 1, "function": {"arguments": '"CET"}'}}
        assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


async def test_reasoning(house: OpenHouse) -> None:
    async with house(lambda _: thinking()) as h:
        message = (await h.client.post(CHAT, ASK | {"model": "mk"})).json()["choices"][0]["message"]
        assert message == {"role": "assistant", "content": "Yes.", "reasoning": "Hmm."}
        chunks = datas(await h.client.post(CHAT, STREAM | {"model": "mk"}))
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
        assert deltas[0] == {"role": "assistant", "content": "", "reasoning": "Hm"}
        assert deltas[1:3] == [{"content": "", "reasoning": "m."}, {"content": "Yes"}]


async def test_logprobs(house: OpenHouse) -> None:
    name = "llama_cpp-chat-logprobs"
    if not any(b"logprobs" in event for event in events(recording(name))):
        pytest.fail("the recording has none")
    async with house(lambda _: Stream(events(recording(name)))) as h:
        asked = {"logprobs": True, "top_logprobs": 2}
        items = (await h.client.post(CHAT, ASK | asked)).json()["choices"][0]["logprobs"]["content"]
        assert {"token", "logprob", "bytes", "top_logprobs"} == items[0].keys()
        assert items[0]["logprob"] <= 0
        assert bytes(items[0]["bytes"]).decode() == items[0]["token"]
        chunks = datas(await h.client.post(CHAT, STREAM | asked))
        streamed = [
            item
            for chunk in chunks[:-1]
            for item in (chunk["choices"][0].get("logprobs") or {"content": []})["content"]
        ]
        assert streamed == items
        assert (h.engine.asked[0].body["logprobs"], h.engine.asked[0].body["top_logprobs"]) == (True, 2)


# -- several answers ---------------------------------------------------------------------------------------------------
def numbered() -> Callable[[Asked], Stream]:
    """Every request gets an answer of its own, as long as its number."""
    count = iter(range(1, 100))

    def script(_: Asked) -> Stream:
        number = next(count)
        return Stream(short_chat(*[f"{number} "] * number))

    return script


async def test_n_answers(house: OpenHouse) -> None:
    async with house(numbered()) as h:
        found = (await h.client.post(CHAT, ASK | {"n": 3, "seed": 5})).json()
        assert [choice["index"] for choice in found["choices"]] == [0, 1, 2]
        said = sorted(choice["message"]["content"] for choice in found["choices"])
        assert said == ["1 ", "2 2 ", "3 3 3 "]
        assert found["usage"] == {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
        assert sorted(asked.body["seed"] for asked in h.engine.asked) == [5, 6, 7], "or all would be the same"
        assert not any("n" in asked.body for asked in h.engine.asked)
        assert h.supervisor.taken == 1


async def test_n_answers_streamed(house: OpenHouse) -> None:
    async with house(numbered()) as h:
        *chunks, done = datas(await h.client.post(CHAT, STREAM | {"n": 2}))
        assert done == "[DONE]"
        texts, ends = {0: "", 1: ""}, []
        for choice in (chunk["choices"][0] for chunk in chunks):
            texts[choice["index"]] += choice["delta"].get("content", "")
            ends += [choice["index"]] if choice["finish_reason"] else []
        assert sorted(texts.values()) == ["1 ", "2 2 "]
        assert sorted(ends) == [0, 1]


async def test_one_of_n_fails(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "DEATH_KNOWN", 0.05)
    never, count = asyncio.Event(), iter(range(9))

    def script(_: Asked) -> Stream:
        if next(count) % 2:
            return Stream([chat_event("b"), never])
        return Stream([chat_event("a"), b'data: {"error":{"message":"boom","code":500}}\n\n'])

    async with house(script) as h:
        *_, error, done = datas(await h.client.post(CHAT, STREAM | {"n": 2}))
        assert (error["error"]["message"], done) == ("boom", "[DONE]")
        await wait_until(lambda: all(asked.finished or asked.aborted for asked in h.engine.asked))
        await h.wait_idle()
        assert (await h.client.post(CHAT, ASK | {"n": 2})).status == 500


async def test_all_of_n_are_refused(house: OpenHouse) -> None:
    async with house(lambda _: Whole(400, b'{"error":{"message":"too long","code":400}}')) as h:
        reply = await h.client.post(CHAT, ASK | {"n": 2})
        assert (reply.status, reply.json()["error"]["message"]) == (400, "too long")
        await h.wait_idle()


async def test_a_client_of_n_answers_leaves(house: OpenHouse) -> None:
    never = asyncio.Event()
    async with house(lambda _: Stream([chat_event("a"), never])) as h:
        async with h.client.exchange("POST", CHAT, STREAM | {"n": 3}) as exchange:
            await exchange.event()
            assert b"chat.completion.chunk" in await exchange.data()
        await wait_until(lambda: len(h.engine.asked) == 3 and all(asked.aborted for asked in h.engine.asked))
        await wait_until(lambda: h.supervisor.open == 0)


async def test_length(house: OpenHouse) -> None:
    async with house(lambda _: cut_short("a")) as h:
        assert (await h.client.post(CHAT, ASK)).json()["choices"][0]["finish_reason"] == "length"


async def test_chunks_without_choices_are_left_out(house: OpenHouse) -> None:
    role = chat_event("")
    async with house(lambda _: Stream([role, USAGE, chat_event("a"), chat_event(finish_reason="stop"), DONE])) as h:
        first, *_ = datas(await h.client.post(CHAT, STREAM))
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": "a"}
