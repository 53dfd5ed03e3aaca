"""/v1/chat/completions: what is refused before an engine is asked, and the form of every error."""

from __future__ import annotations

from typing import Any

import pytest

from hyperllamad.core.errors import BusyError
from tests.front.conftest import OpenHouse
from tests.front.openai_asks import ASK, CHAT, NAMED, TOOL, refusal, says

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


async def test_a_long_text_that_is_almost_an_image_is_read_once(house: OpenHouse) -> None:
    """Not again from each of its line breaks, which for so many is longer than anybody waits."""
    url = PNG.partition(",")[0] + "," + "\n" * 500_000 + "!"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    assert await refusal(house, messages=[{"role": "user", "content": content}]) == (400, "invalid image input")
