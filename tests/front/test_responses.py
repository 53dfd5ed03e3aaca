"""/v1/responses: items in, items out, whole or event by event."""

from __future__ import annotations

from typing import Any

import pytest

from hyperllamad.front import relay
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Stream, chat_event, short_chat
from tests.front.sse_client import calling, cut_short, events, thinking

PATH = "/v1/responses"
ASK: dict[str, Any] = {"model": "m", "input": "hi"}
STREAM = ASK | {"stream": True}
FLAT = {"type": "function", "name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True}
CLOCK = {"type": "function", "name": "clock", "parameters": {"type": "object"}}


async def test_whole(house: OpenHouse) -> None:
    async with house(lambda _: Stream(short_chat("Hel", "lo"))) as h:
        reply = await h.client.post(PATH, ASK | {"instructions": "Be brief.", "metadata": {"a": "b"}})
        found = reply.json()
        assert reply.body.endswith(b"}\n")
        assert found["id"].startswith("resp_")
        assert (found["status"], found["error"], found["incomplete_details"]) == ("completed", None, None)
        (item,) = found["output"]
        content = [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}]
        assert item.pop("id").startswith("msg_")
        assert item == {"type": "message", "status": "completed", "role": "assistant", "content": content}
        assert found["usage"] == {
            "input_tokens": 7,
            "output_tokens": 3,
            "total_tokens": 10,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        assert (found["instructions"], found["metadata"], found["store"]) == ("Be brief.", {"a": "b"}, False)
        body = h.engine.asked[0].body
        assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
        assert (body["temperature"], body["top_p"]) == (1.0, 0.9)


@pytest.mark.parametrize("wire", [True, False])
async def test_stream(house: OpenHouse, wire: bool) -> None:
    async with house(lambda _: Stream(short_chat("Hel", "lo")), wire=wire) as h:
        reply = await h.client.post(PATH, STREAM)
        found = events(reply)
        assert reply.header("cache-control") == "no-cache"
        assert [name for name, _ in found] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert [data["sequence_number"] for _, data in found] == list(range(10))
        assert all(name == data["type"] for name, data in found)
        assert found[0][1]["response"]["status"] == "in_progress"
        assert [data["delta"] for name, data in found if name.endswith("delta")] == ["Hel", "lo"]
        final = found[-1][1]["response"]
        assert final["output"] == [found[-2][1]["item"]]
        assert final["output"][0]["content"][0]["text"] == "Hello"
        assert final["output"][0]["id"] == found[4][1]["item_id"]
        assert final["usage"]["total_tokens"] == 10


async def test_thinking_and_calls(house: OpenHouse) -> None:
    async with house(lambda _: thinking()) as h:
        thought, message = (await h.client.post(PATH, ASK | {"model": "mk"})).json()["output"]
        assert thought["summary"] == [{"type": "summary_text", "text": "Hmm."}]
        assert thought["encrypted_content"] == "Hmm."
        assert message["content"][0]["text"] == "Yes."
        found = events(await h.client.post(PATH, STREAM | {"model": "mk", "reasoning": {"effort": "high"}}))
        assert [name for name, _ in found[2:7]] == [
            "response.output_item.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.output_item.done",
        ]
        output = found[-1][1]["response"]["output"]
        assert [item["type"] for item in output] == ["reasoning", "message"]
        assert output[0]["summary"][0]["text"] == "Hmm."
        assert [data.get("output_index") for _, data in found[2:-1]] == [0] * 5 + [1] * 7
        assert h.engine.asked[1].body["reasoning_effort"] == "high"


async def test_calls(house: OpenHouse) -> None:
    async with house(lambda _: calling()) as h:
        ask = {
            "model": "mt",
            "tools": [FLAT, {"type": "namespace", "name": "n", "tools": [CLOCK]}, {"type": "web_search"}],
        }
        message, one, two = (await h.client.post(PATH, ASK | ask)).json()["output"]
        assert message["content"][0]["text"] == "Let me see."
        assert (one["type"], one["call_id"], one["name"]) == ("function_call", "call_one", "weather")
        assert (two["arguments"], two["status"]) == ('{"zone":"CET"}', "completed")
        names = [tool["function"]["name"] for tool in h.engine.asked[0].body["tools"]]
        assert names == ["weather", "clock"]
        assert h.engine.asked[0].body["tools"][0]["function"]["strict"] is True
        found = events(await h.client.post(PATH, STREAM | ask))
        assert [name for name, _ in found[-9:]] == [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
        ] * 2 + ["response.completed"]
        first = found[-9][1]
        assert (first["output_index"], first["item"]["arguments"], first["item"]["status"]) == (1, "", "in_progress")
        assert [item["type"] for item in found[-1][1]["response"]["output"]] == ["message"] + ["function_call"] * 2


async def test_cut_short_is_incomplete(house: OpenHouse) -> None:
    """Ollama says `completed` to this, too (case 106)."""
    async with house(lambda _: cut_short("a")) as h:
        ask = {"max_output_tokens": 1}
        whole = (await h.client.post(PATH, ASK | ask)).json()
        assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert (whole["output"][0]["status"], whole["max_output_tokens"]) == ("incomplete", 1)
        *_, (name, last) = events(await h.client.post(PATH, STREAM | ask))
        assert (name, last["response"]["status"]) == ("response.incomplete", "incomplete")
        assert h.engine.asked[0].body["max_tokens"] == 1


async def test_fails_in_the_middle(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ollama ends such a stream without a word."""
    monkeypatch.setattr(relay, "DEATH_KNOWN", 0.05)
    async with house(lambda _: Stream([chat_event("a"), b'data: {"error":"boom"}\n\n'])) as h:
        *_, (name, last) = events(await h.client.post(PATH, STREAM))
        assert (name, last["response"]["status"]) == ("response.failed", "failed")
        text = "an error was encountered while running the model: Scripted: boom"
        assert last["response"]["error"] == {"code": "server_error", "message": text}
        await h.wait_idle()


@pytest.mark.parametrize("none", [{}, {"input": None}, {"input": []}])
async def test_no_input_loads(house: OpenHouse, none: dict[str, Any]) -> None:
    async with house(lambda _: Stream([])) as h:
        assert (await h.client.post(PATH, {"model": "me"} | none)).status == 400, "it cannot chat"
        found = (await h.client.post(PATH, {"model": "m"} | none)).json()
        assert (found["status"], found["output"][0]["content"][0]["text"]) == ("completed", "")
        names = [name for name, _ in events(await h.client.post(PATH, {"model": "m", "stream": True} | none))]
        assert (names[0], names[-1]) == ("response.created", "response.completed")
        assert h.engine.asked == []
        assert h.supervisor.taken == 2


async def test_items(house: OpenHouse) -> None:
    items: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
        {"type": "web_search_call", "id": "w"},
        {"type": "reasoning", "summary": [], "encrypted_content": "so"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
    ]
    async with house(lambda _: Stream(short_chat("a"))) as h:
        assert (await h.client.post(PATH, ASK | {"input": items})).status == 200
        function = {"name": "f", "arguments": "{}"}
        system, user, called, one, two, said = h.engine.asked[0].body["messages"]
        assert (system, user) == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"})
        assert (called["role"], called["content"], called["reasoning_content"]) == ("assistant", "", "hm")
        assert called["tool_calls"][0] == {"id": "c1", "type": "function", "function": function}
        assert len(called["tool_calls"]) == 2
        assert one == {"role": "tool", "content": "1", "tool_call_id": "c1"}
        assert two["content"] == "2"
        assert said == {"role": "assistant", "content": "b", "reasoning_content": "so"}


async def test_format_and_choice(house: OpenHouse) -> None:
    schema = {"type": "object"}
    async with house(lambda _: Stream(short_chat("a"))) as h:
        wanted = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
        choice = {"type": "function", "name": "weather"}
        ask = {"model": "mt", "tools": [FLAT, CLOCK], "tool_choice": choice, "text": wanted}
        assert (await h.client.post(PATH, ASK | ask)).json()["text"] == wanted
        body = h.engine.asked[0].body
        assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        assert (body["tool_choice"], len(body["tools"])) == ("required", 1)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"model": ""}, "model is required"),
        ({"input": 5}, "input must be a string or array: 5"),
        ({"input": ["x"]}, "input[0]: input item must be an object"),
        ({"input": [{"content": "x"}]}, "input[0]: input item missing required 'type' field"),
        ({"input": [{"type": "zzz"}]}, 'input[0]: unknown input item type: "zzz"'),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
            "input[0]: file inputs are not currently supported",
        ),
        ({"input": [{"role": "user", "content": 5}]}, "input[0]: invalid message content type: float64"),
        ({"input": [{"type": "function_call", "arguments": "["}]}, "input[0]: invalid tool call arguments"),
        ({"tools": [FLAT]}, "registry.ollama.ai/library/m:latest does not support tools"),
        ({"reasoning": {"effort": "high"}}, '"m" does not support thinking'),
    ],
)
async def test_refused(house: OpenHouse, fields: dict[str, Any], text: str) -> None:
    async with house(lambda _: Stream([])) as h:
        reply = await h.client.post(PATH, ASK | fields)
        assert (reply.status, reply.json()["error"]["message"]) == (400, text)
        assert h.engine.asked == []
