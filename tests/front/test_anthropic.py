"""/v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hyperllamad.core.errors import BusyError
from hyperllamad.core.models import Capability
from hyperllamad.front import relay
from tests.front import fake_supervisor as fakes
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import DONE, USAGE, Stream, Whole, by_path, chat_event, short_chat
from tests.front.sse_client import call_piece, calling, cut_short, events, thinking

PATH = "/v1/messages"
USER = {"role": "user", "content": "hello there"}
ASK: dict[str, Any] = {"model": "m", "max_tokens": 8, "messages": [USER]}
STREAM = ASK | {"stream": True}
TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object"}}
CLOCK = {"name": "clock", "input_schema": {"type": "object"}}


async def body_for(house: OpenHouse, **fields: Any) -> dict[str, Any]:
    """What the engine was asked for a request with these fields."""
    async with house(lambda _: Stream(short_chat("a"))) as h:
        reply = await h.client.post(PATH, ASK | fields, headers={"x-api-key": "k", "anthropic-version": "2023-06-01"})
        assert reply.status == 200, reply.text
        return h.engine.asked[0].body


async def test_whole(house: OpenHouse) -> None:
    async with house(lambda _: Stream(short_chat("Hel", "lo"))) as h:
        reply = await h.client.post(PATH, ASK)
        found = reply.json()
        assert reply.body.endswith(b"}\n")
        assert re.fullmatch("msg_[0-9a-f]{24}", found.pop("id"))
        assert found == {
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [{"type": "text", "text": "Hello"}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 7, "output_tokens": 3},
        }
        await h.wait_idle()


@pytest.mark.parametrize("wire", [True, False])
async def test_stream(house: OpenHouse, wire: bool) -> None:
    async with house(lambda _: cut_short("Hel", "lo"), wire=wire) as h:
        found = events(await h.client.post(PATH, STREAM))
        assert all(name == data["type"] for name, data in found)
        start, *middle, delta, stop = (data for _, data in found)
        assert start["message"]["usage"] == {"input_tokens": 2, "output_tokens": 0}, "11 characters"
        assert start["message"]["content"] == []
        assert middle == [
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
            {"type": "content_block_stop", "index": 0},
        ]
        assert delta["delta"] == {"stop_reason": "max_tokens"}
        assert delta["usage"] == {"input_tokens": 7, "output_tokens": 3}
        assert stop == {"type": "message_stop"}


async def test_thinking(house: OpenHouse) -> None:
    async with house(lambda _: thinking()) as h:
        ask = {"model": "mk", "thinking": {"type": "enabled", "budget_tokens": 1024}}
        thought, text = (await h.client.post(PATH, ASK | ask)).json()["content"]
        assert thought == {"type": "thinking", "thinking": "Hmm."}
        assert text == {"type": "text", "text": "Yes."}
        found = [data for _, data in events(await h.client.post(PATH, STREAM | ask))]
        assert found[1]["content_block"] == {"type": "thinking", "thinking": ""}
        assert found[2]["delta"] == {"type": "thinking_delta", "thinking": "Hm"}
        assert [data["index"] for data in found[1:-2]] == [0] * 4 + [1] * 4


async def test_tools(house: OpenHouse) -> None:
    async with house(lambda _: calling()) as h:
        server_tool = {"type": "web_search_20250305", "name": "web_search"}
        ask = {"model": "mt", "tools": [TOOL, CLOCK, server_tool]}
        found = (await h.client.post(PATH, ASK | ask)).json()
        text, one, two = found["content"]
        assert (text["text"], found["stop_reason"]) == ("Let me see.", "tool_use")
        assert one == {"type": "tool_use", "id": "call_one", "name": "weather", "input": {"city": "Paris"}}
        assert two["input"] == {"zone": "CET"}
        described = [tool["function"] for tool in h.engine.asked[0].body["tools"]]
        assert described == [
            {"name": "weather", "parameters": {"type": "object"}, "description": "d"},
            {"name": "clock", "parameters": {"type": "object"}},
        ]
        streamed = [data for _, data in events(await h.client.post(PATH, STREAM | ask))]
        starts = [data["content_block"] for data in streamed if data["type"] == "content_block_start"]
        assert starts[1] == {"type": "tool_use", "id": "call_one", "name": "weather", "input": {}}
        deltas = [data["delta"] for data in streamed if data["type"] == "content_block_delta"]
        assert deltas[-1] == {"type": "input_json_delta", "partial_json": '{"zone":"CET"}'}
        assert streamed[-2]["delta"]["stop_reason"] == "tool_use"
        ends = [data["index"] for data in streamed if data["type"] == "content_block_stop"]
        assert ends == [0, 1, 2]


async def test_a_call_that_is_none_is_text(house: OpenHouse) -> None:
    """A model may write anything where arguments belong; this API can only show an object there."""
    broken = [call_piece(0, "{zone", "clock", "c"), chat_event(finish_reason="tool_calls"), USAGE, DONE]
    async with house(lambda _: Stream(broken)) as h:
        ask = {"model": "mt", "tools": [CLOCK]}
        found = (await h.client.post(PATH, ASK | ask)).json()
        assert found["content"] == [{"type": "text", "text": "clock({zone)"}]
        assert found["stop_reason"] == "end_turn"
        streamed = [data for _, data in events(await h.client.post(PATH, STREAM | ask))]
        assert streamed[2]["delta"]["text"] == "clock({zone)"


async def test_messages(house: OpenHouse) -> None:
    body = await body_for(
        house,
        system=[{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "document"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "b"},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "and?"},
                    {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "42"}]},
                ],
            },
        ],
    )
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "user", "content": "and?"},
    ]


async def test_images(house: OpenHouse) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"}
    async with house(lambda _: Stream(short_chat("a")), models=(fakes.model("mv", Capability.VISION),)) as h:
        content = [{"type": "image", "source": source}, {"type": "text", "text": "?"}]
        reply = await h.client.post(PATH, ASK | {"model": "mv", "messages": [{"role": "user", "content": content}]})
        assert reply.status == 200
        image, _ = h.engine.asked[0].body["messages"][0]["content"]
        assert image == {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}}


async def test_sampling(house: OpenHouse) -> None:
    """Nothing is forced to 1.0 here, and what is not said is Ollama's default."""
    body = await body_for(house, top_k=3, stop_sequences=["x"])
    assert (body["temperature"], body["top_p"], body["top_k"], body["stop"]) == (0.8, 0.9, 3, ["x"])
    assert body["max_tokens"] == 8
    assert (await body_for(house, temperature=0, top_p=0.5))["temperature"] == 0


@pytest.mark.parametrize(
    ("choice", "sent", "count"),
    [
        ({"type": "auto"}, None, 2),
        ({"type": "any"}, "required", 2),
        ({"type": "tool", "name": "clock"}, "required", 1),
        ({"type": "none"}, None, 0),
    ],
)
async def test_tool_choice(house: OpenHouse, choice: Any, sent: str | None, count: int) -> None:
    body = await body_for(
        house, model="mt", tools=[TOOL, CLOCK], tool_choice=choice | {"disable_parallel_tool_use": True}
    )
    assert (body.get("tool_choice"), len(body.get("tools", []))) == (sent, count)
    assert body.get("parallel_tool_calls") == (False if count else None)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, {"enable_thinking": True}),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
        ({"thinking": {"type": "adaptive"}}, {"enable_thinking": True}),
        ({"output_config": {"effort": "xhigh"}}, {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)
async def test_thinking_is_asked_for(house: OpenHouse, fields: Any, sent: Any) -> None:
    assert (await body_for(house, model="mk", **fields))["chat_template_kwargs"] == sent


async def test_thinking_is_dropped_where_it_cannot_be(house: OpenHouse) -> None:
    """As in Ollama: clients of this API switch it on for every model (case 109)."""
    assert "chat_template_kwargs" not in await body_for(house, thinking={"type": "enabled", "budget_tokens": 1})


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"model": ""}, 400, "model is required"),
        ({"max_tokens": None}, 400, "max_tokens is required and must be positive"),
        ({"max_tokens": -1}, 400, "max_tokens is required and must be positive"),
        ({"messages": []}, 400, "messages is required"),
        ({"messages": [{"role": "user"}]}, 400, "unexpected end of JSON input"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "content must be a string or a list of blocks"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}
                ]
            },
            400,
            "invalid image source type: url. Only base64 images are supported.",
        ),
        ({"model": "nope"}, 404, "model 'nope' not found"),
        ({"model": "me"}, 400, '"me" does not support chat'),
        ({"tools": [TOOL]}, 400, "registry.ollama.ai/library/m:latest does not support tools"),
        ({"tool_choice": {"type": "zzz"}}, 400, "tool_choice must be of type auto, any, none, or tool with a name"),
    ],
)
async def test_refused(house: OpenHouse, fields: dict[str, Any], status: int, text: str) -> None:
    async with house(lambda _: Stream([])) as h:
        reply = await h.client.post(PATH, ASK | fields)
        found = reply.json()
        assert (reply.status, found["type"], found["error"]["message"]) == (status, "error", text)
        assert found["error"]["type"] == {400: "invalid_request_error", 404: "not_found_error"}[status]
        assert re.fullmatch("req_[0-9a-f]{24}", found["request_id"])
        assert reply.header("request-id") == found["request_id"]
        assert h.engine.asked == []
        await h.wait_idle()


async def test_error_forms(house: OpenHouse) -> None:
    async with house(lambda _: Stream([])) as h:
        empty = await h.client.post(PATH, raw=b"")
        assert (empty.json()["error"]["message"], empty.body.endswith(b"\n")) == ("EOF", False)
        h.supervisor.refusal = BusyError()
        busy = await h.client.post(PATH, ASK)
        assert (busy.status, busy.json()["error"]["type"]) == (503, "overloaded_error")
        assert busy.header("content-type") == "application/json"


async def test_fails_in_the_middle(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ollama ends such a stream without a word."""
    monkeypatch.setattr(relay, "DEATH_KNOWN", 0.05)
    async with house(lambda _: Stream([chat_event("a"), b'data: {"error":"boom"}\n\n'])) as h:
        *_, (name, last) = events(await h.client.post(PATH, STREAM))
        text = "an error was encountered while running the model: Scripted: boom"
        assert (name, last["error"]) == ("error", {"type": "api_error", "message": text})
        assert last["request_id"].startswith("req_")
        await h.wait_idle()


async def test_count_tokens(house: OpenHouse) -> None:
    """Ollama has no such route."""
    routes = {"/apply-template": Whole(200, b'{"prompt":"<|x|>"}'), "/tokenize": Whole(200, b'{"tokens":[1,2,3,4]}')}
    engine = fakes.FakeEngine(apply_template="/apply-template", tokenize="/tokenize")
    async with house(by_path(routes), engine=engine) as h:
        ask = {"model": "m", "messages": [USER], "system": "s"}
        reply = await h.client.post(PATH + "/count_tokens", ask)
        assert reply.body == b'{"input_tokens":4}\n'
        assert [message["role"] for message in h.engine.asked[0].body["messages"]] == ["system", "user"]
        bad = await h.client.post(PATH + "/count_tokens", {"model": "m"})
        assert (bad.status, bad.json()["error"]["message"]) == (400, "messages is required")
        assert (await h.client.post(PATH + "/count_tokens", {"messages": [USER]})).status == 400
        await h.wait_idle()


async def test_count_tokens_without_a_tokenizer(house: OpenHouse) -> None:
    """An engine says what it read when it answers, so it is asked for the shortest answer there is."""
    async with house(lambda _: cut_short("a")) as h:
        reply = await h.client.post(PATH + "/count_tokens", {"model": "m", "messages": [USER]})
        assert reply.json() == {"input_tokens": 7}
        assert h.engine.asked[0].body["max_tokens"] == 1
