"""/v1/chat/completions: what the engine is asked."""

from __future__ import annotations

from typing import Any

import pytest

from hyperllamad.core.models import Capability
from tests.front import fake_supervisor as fakes
from tests.front.conftest import OpenHouse
from tests.front.openai_asks import ASK, CHAT, CLOCK, NAMED, TOOL, body_for, says
from tests.front.scripted_engine import Stream, Whole, by_path, short_chat


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


@pytest.mark.parametrize(("min_p", "says"), [(0.1, "min_p"), (0, None), (None, None)])
async def test_what_the_engine_can_do_nothing_with_is_said(house: OpenHouse, min_p: Any, says: str | None) -> None:
    async with house(lambda _: Stream(short_chat("a"))) as h:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "min_p": min_p}
        reply = await h.client.post("/v1/chat/completions", body)
    assert (reply.status, reply.header("x-hyperllama-ignored")) == (200, says)
