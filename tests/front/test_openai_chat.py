"""/v1/chat/completions: what the engine is asked, and what the client is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from hyperllamad.core.errors import BusyError
from hyperllamad.core.models import Capability
from hyperllamad.front import relay
from tests.front import fake_supervisor as fakes
from tests.front.conftest import House, OpenHouse, wait_until
from tests.front.scripted_engine import (
    DONE,
    USAGE,
    Asked,
    Stream,
    Whole,
    by_path,
    chat_event,
    events,
    recording,
    short_chat,
)
from tests.front.sse_client import calling, cut_short, datas, thinking

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "x"}
ASK: dict[str, Any] = {"model": "m", "messages": [USER]}
STREAM = ASK | {"stream": True}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


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


# -- what the engine is asked ------------------------------------------------------------------------------------------


async def test_temperature_is_1_when_not_said(house: OpenHouse) -> None:
    """As at OpenAI, whatever the model's own parameters say (case 96)."""
    async with house(says("a")) as h:
        await h.client.post(CHAT, ASK | {"model": "ms"})
        body = h.engine.asked[0].body
        assert (body["temperature"], body["top_p"], body["seed"], body["stop"]) == (1.0, 1.0, 7, ["A", "B"])
        assert body["messages"][0] == {"role": "system", "content": "You are Bob."}
        assert body["stream"] is True


async def test_fields_that_are_handed_on(house: OpenHouse) -> None:
    said = {
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 3,
        "min_p": 0.1,
        "seed": 0,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "logit_bias": {"17": -100},
    }
    body = await body_for(house, **said, user="u", store=True, metadata={"a": "b"}, service_tier="auto")
    assert {name: body[name] for name in said} == said
    assert body.keys() == {*said, "model", "messages", "stream", "stream_options", "max_tokens"}


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, 2048),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 9999999}, 2048),
    ],
)
async def test_limits(house: OpenHouse, fields: dict[str, int], limit: int) -> None:
    """Ollama ignores max_completion_tokens, the only name that today's OpenAI clients send."""
    assert (await body_for(house, **fields))["max_tokens"] == limit


@pytest.mark.parametrize(
    ("stop", "sent"), [("a", ["a"]), (["a", 1, "b"], ["a", "b"]), (5, None), (None, None), ([], None)]
)
async def test_stop(house: OpenHouse, stop: Any, sent: list[str] | None) -> None:
    assert (await body_for(house, stop=stop)).get("stop") == sent


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
        ),
        ({"type": "text"}, None),
        ({"type": "zzz"}, None),
    ],
)
async def test_response_format(house: OpenHouse, given: Any, sent: Any) -> None:
    assert (await body_for(house, response_format=given)).get("response_format") == sent


NAMED = {"type": "function", "function": {"name": "clock"}}


@pytest.mark.parametrize(
    ("choice", "tools", "sent"),
    [
        (None, [TOOL, CLOCK], None),
        ("auto", [TOOL, CLOCK], None),
        ("none", None, None),
        ("required", [TOOL, CLOCK], "required"),
        (NAMED, [CLOCK], "required"),
    ],
)
async def test_tool_choice(house: OpenHouse, choice: Any, tools: Any, sent: Any) -> None:
    """Ollama knows none of it.  A choice of one tool is that tool alone, required: no engine reads it otherwise."""
    body = await body_for(house, model="mt", tools=[TOOL, CLOCK], tool_choice=choice, parallel_tool_calls=False)
    assert (body.get("tools"), body.get("tool_choice")) == (tools, sent)
    assert body.get("parallel_tool_calls") == (False if tools else None)


@pytest.mark.parametrize(
    ("effort", "enabled", "level"),
    [
        (None, True, None),
        ("none", False, None),
        ("minimal", True, "low"),
        ("medium", True, "medium"),
        ("ultra", True, "high"),
    ],
)
async def test_reasoning_effort(house: OpenHouse, effort: str | None, enabled: bool, level: str | None) -> None:
    for field in ({"reasoning_effort": effort}, {"reasoning": {"effort": effort}}):
        body = await body_for(house, model="mk", **field)
        assert body["chat_template_kwargs"]["enable_thinking"] is enabled
        assert body.get("reasoning_effort") == level
    assert "chat_template_kwargs" not in await body_for(house, reasoning_effort="none")


async def test_messages(house: OpenHouse) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
    body = await body_for(
        house,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
    )
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": calls},
        {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "f"},
    ]


async def test_images(house: OpenHouse) -> None:
    """One message with its parts, where Ollama makes a message of every part."""
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}},
        {"type": "image_url", "image_url": "data:;base64,iVBORw0K"},
    ]
    async with house(says("a"), models=(fakes.model("mv", Capability.VISION),)) as h:
        reply = await h.client.post(CHAT, {"model": "mv", "messages": [{"role": "user", "content": parts}]})
        assert reply.status == 200
        text, one, two = h.engine.asked[0].body["messages"][0]["content"]
        assert (text["type"], one["image_url"]["url"]) == ("text", "data:image/png;base64,iVBORw0K")
        assert two["image_url"]["url"] == "data:image/jpeg;base64,iVBORw0K"


async def test_keep_alive(house: OpenHouse) -> None:
    async with house(says("a")) as h:
        await h.client.post(CHAT, ASK | {"keep_alive": "10m"})
        assert h.supervisor.keep_alive == 600


async def test_debug_render_only(house: OpenHouse) -> None:
    engine = fakes.FakeEngine(apply_template="/apply-template")
    async with house(by_path({"/apply-template": Whole(200, b'{"prompt":"<|x|>"}')}), engine=engine) as h:
        found = (await h.client.post(CHAT, ASK | {"_debug_render_only": True})).json()
        assert found["_debug_info"] == {"rendered_template": "<|x|>"}
        assert found["choices"][0]["finish_reason"] is None


# -- refusals ----------------------------------------------------------------------------------------------------------

PNG = "data:image/png;base64,iVBORw0K"
BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"messages": []}, 400, "[] is too short - 'messages'"),
    ({"model": ""}, 400, "model is required"),
    ({"model": "nope"}, 404, "model 'nope' not found"),
    ({"model": "bad name"}, 400, "invalid model name"),
    ({"model": "x:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
    (
        {"model": 1},
        400,
        "json: cannot unmarshal number into Go struct field ChatCompletionRequest.model of type string",
    ),
    (
        {"messages": ["x"]},
        400,
        "json: cannot unmarshal string into Go struct field ChatCompletionRequest.messages of type openai.Message",
    ),
    (
        {"temperature": "hot"},
        400,
        "json: cannot unmarshal string into Go struct field ChatCompletionRequest.temperature of type float64",
    ),
    ({"messages": [{"role": "user"}]}, 400, "invalid message content type: <nil>"),
    ({"messages": [{"role": "user", "content": 5}]}, 400, "invalid message content type: float64"),
    ({"messages": [{"role": "user", "content": [{"type": "zzz"}]}]}, 400, "invalid message format"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, 400, "invalid message format"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]},
        400,
        "image URLs are not currently supported, please use base64 encoded data instead",
    ),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lG"}}]}
            ]
        },
        400,
        "invalid image input",
    ),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,&"}}]}
            ]
        },
        400,
        "invalid image input",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]},
        400,
        '"m" does not support images (ask a model that has the capability vision)',
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        400,
        "invalid tool call arguments",
    ),
    (
        {"reasoning_effort": "zzz"},
        400,
        (
            'invalid reasoning value: "zzz" '
            '(must be "minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none")'
        ),
    ),
    ({"reasoning_effort": "high"}, 400, '"m" does not support thinking'),
    ({"tools": [TOOL]}, 400, "registry.ollama.ai/library/m:latest does not support tools"),
    ({"model": "me"}, 400, '"me" does not support chat'),
    ({"top_logprobs": 21, "logprobs": True}, 400, "top_logprobs must be between 0 and 20"),
    ({"n": 0}, 400, "n must be between 1 and 128"),
    ({"n": 129}, 400, "n must be between 1 and 128"),
    ({"tool_choice": "zzz"}, 400, 'invalid tool_choice (must be "none", "auto", "required", or name a function)'),
    (
        {"model": "mt", "tools": [TOOL], "tool_choice": NAMED},
        400,
        "tool_choice names 'clock', which is not among the tools",
    ),
    ({"model": "mt", "tools": [{"type": "function"}]}, 400, "each of the tools must be a function with a name"),
    ({"logit_bias": {"x": 1}}, 400, "logit_bias must give token ids a number between -100 and 100"),
    ({"_debug_render_only": True}, 400, "Scripted does not show the rendered prompt"),
]


@pytest.mark.parametrize(("fields", "status", "text"), BAD)
async def test_refused(house: OpenHouse, fields: dict[str, Any], status: int, text: str) -> None:
    assert await refusal(house, **fields) == (status, text)


async def test_error_types_and_forms(house: OpenHouse) -> None:
    """Errors found before the route begins end without a newline, as in Ollama."""
    async with house(says("a")) as h:
        door = await h.client.post(CHAT, {"model": "m"})
        inside = await h.client.post(CHAT, ASK | {"model": "nope"})
        assert door.header("content-type") == "application/json; charset=utf-8"
        assert not door.body.endswith(b"\n")
        assert inside.header("content-type") == "application/json"
        assert inside.body.endswith(b"\n")
        h.supervisor.refusal = BusyError()
        busy = await h.client.post(CHAT, ASK)
        types = [reply.json()["error"]["type"] for reply in (door, inside, busy)]
        assert types == ["invalid_request_error", "not_found_error", "api_error"]
        assert busy.status == 503
        for raw, text in ((b"", "EOF"), (b" \n", "EOF"), (b"{", "unexpected EOF")):
            reply = await h.client.post(CHAT, raw=raw)
            assert (reply.status, reply.json()["error"]["message"]) == (400, text)


async def test_our_own_fault(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(says("a")) as h:
        monkeypatch.setattr(h.supervisor, "lease", lambda *_, **__: 1 / 0)
        reply = await h.client.post(CHAT, ASK)
        assert reply.status == 500
        assert reply.json()["error"] == {
            "message": "internal error: the log of hyperllamad has the details",
            "type": "api_error",
            "param": None,
            "code": None,
        }


# -- trouble with the engine -------------------------------------------------------------------------------------------


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


async def test_length(house: OpenHouse) -> None:
    async with house(lambda _: cut_short("a")) as h:
        assert (await h.client.post(CHAT, ASK)).json()["choices"][0]["finish_reason"] == "length"


async def test_chunks_without_choices_are_left_out(house: OpenHouse) -> None:
    role = chat_event("")
    async with house(lambda _: Stream([role, USAGE, chat_event("a"), chat_event(finish_reason="stop"), DONE])) as h:
        first, *_ = datas(await h.client.post(CHAT, STREAM))
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": "a"}


# -- compressed bodies -------------------------------------------------------------------------------------------------


async def send_compressed(h: House, data: bytes, encoding: str = "zstd") -> Any:
    return await h.client.post(CHAT, raw=data, headers={"Content-Encoding": encoding})


async def test_zstd(house: OpenHouse) -> None:
    plain = json.dumps(ASK).encode()
    async with house(says("a")) as h:
        assert (await send_compressed(h, zstandard.compress(plain))).status == 200
        streamed = zstandard.ZstdCompressor().compressobj()  # a frame that does not say how long it is
        assert (await send_compressed(h, streamed.compress(plain) + streamed.flush())).status == 200
        assert h.engine.asked[1].body["messages"] == [USER]


async def test_zstd_that_is_not_sound(house: OpenHouse) -> None:
    whole = zstandard.compress(json.dumps(ASK).encode())
    async with house(says("a")) as h:
        for data in (b"garbage", whole[:-4], b""):
            reply = await send_compressed(h, data)
            assert (reply.status, reply.json()["error"]["type"]) == (400, "invalid_request_error")
        bomb = await send_compressed(h, zstandard.compress(bytes(65 * 1024 * 1024)))
        assert bomb.status == 413
        other = await send_compressed(h, b"x", "br")
        assert (other.status, other.json()["error"]["message"]) == (
            415,
            "request bodies in the encoding 'br' are not understood (send the body as it is, or as zstd)",
        )


@pytest.mark.parametrize(("min_p", "says"), [(0.1, "min_p"), (0, None), (None, None)])
async def test_what_the_engine_can_do_nothing_with_is_said(house: OpenHouse, min_p: Any, says: str | None) -> None:
    async with house(lambda _: Stream(short_chat("a"))) as h:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "min_p": min_p}
        reply = await h.client.post("/v1/chat/completions", body)
    assert (reply.status, reply.header("x-hyperllama-ignored")) == (200, says)
