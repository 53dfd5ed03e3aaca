"""What clients send to POST /v1/responses, and the chat it means.

Fields that are not here (store, include, background, ...) are ignored, as they are by Ollama.  Nothing is kept between
requests, so `previous_response_id` has nothing to refer to.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hyperllamad.core.errors import BadRequestError
from hyperllamad.front import openai_chats, responses_items
from hyperllamad.front.chat_body import Chat
from hyperllamad.front.compat_body import objects
from hyperllamad.front.shapes import (
    Reader,
    Reading,
    Shape,
    anything,
    boolean,
    integer,
    keep_alive,
    mapping,
    number,
    string,
)


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """None = not said."""

    model: str = ""
    input: Any = None
    instructions: str = ""
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    reasoning: dict[str, Any] = {}
    text: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    truncation: str = ""
    stream: bool = False
    keep_alive: float | None = None


def _input(value: Any, _: Reading) -> Any:
    if not isinstance(value, (str, list)):
        shown = msgspec.json.encode(value).decode()
        raise BadRequestError(f"input must be a string or array: {shown}")
    return value


_TEXT_FORMAT: dict[str, Reader] = {"type": string, "name": string, "schema": anything, "strict": boolean}

RESPONSES = Shape(
    "ResponsesRequest",
    ResponsesRequest,
    {
        "model": string,
        "input": _input,
        "instructions": string,
        "max_output_tokens": integer,
        "temperature": number,
        "top_p": number,
        "tools": objects("[]openai.ResponsesTool", "openai.ResponsesTool"),
        "tool_choice": anything,
        "parallel_tool_calls": boolean,
        "reasoning": Shape(
            "ResponsesReasoning", dict[str, Any], {"effort": string, "summary": string}, package="openai"
        ),
        "text": Shape(
            "ResponsesText",
            dict[str, Any],
            {"format": Shape("ResponsesTextFormat", dict[str, Any], _TEXT_FORMAT, package="openai")},
            package="openai",
        ),
        "metadata": mapping,
        "truncation": string,
        "stream": boolean,
        "keep_alive": keep_alive,
    },
    package="openai",
)


def chat(request: ResponsesRequest) -> Chat:
    """The chat a request means; raises BadRequestError."""
    messages = responses_items.messages(request.input)
    if request.instructions:
        messages.insert(0, {"role": "system", "content": request.instructions})
    said = {
        "temperature": 1.0 if request.temperature is None else request.temperature,  # as at OpenAI
        "top_p": request.top_p,
        "num_predict": request.max_output_tokens,
    }
    wanted = request.text.get("format") or {}
    return Chat(
        messages=messages,
        options={name: value for name, value in said.items() if value is not None},
        think=openai_chats.think(request.reasoning.get("effort", "")),
        tools=openai_chats.functions(responses_items.tools(request.tools)),
        tool_choice=openai_chats.tool_choice(request.tool_choice),
        parallel_tool_calls=request.parallel_tool_calls,
        response_format=openai_chats.json_schema(wanted) if wanted.get("type") == "json_schema" else None,
    )
