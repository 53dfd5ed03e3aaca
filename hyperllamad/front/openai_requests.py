"""What clients send to the OpenAI routes: one Struct and one Shape per request.

Names and types are those of Ollama's openai/openai.go, and of OpenAI's reference where Ollama leaves a field out.
Fields that are not here mean nothing to a model and are ignored, as they are by Ollama.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hyperllamad.front.compat_body import objects
from hyperllamad.front.shapes import (
    Reader,
    Reading,
    Shape,
    anything,
    boolean,
    integer,
    keep_alive,
    listing,
    mapping,
    number,
    string,
)


class StreamOptions(msgspec.Struct, kw_only=True):
    include_usage: bool = False


class ToolCall(msgspec.Struct, kw_only=True):
    """A call the model made earlier; the function's `arguments` are a JSON text."""

    id: str = ""
    index: int = 0
    type: str = ""
    function: dict[str, str] = {}


class Message(msgspec.Struct, kw_only=True):
    """One message; `content` is a text, a list of parts, or null beside tool calls."""

    role: str = ""
    content: Any = None
    reasoning: str = ""
    reasoning_content: str = ""
    tool_calls: list[ToolCall] = []
    name: str = ""
    tool_call_id: str = ""


class Generation(msgspec.Struct, kw_only=True):
    """What both generating routes have; None = not said."""

    model: str = ""
    stream: bool = False
    stream_options: StreamOptions = msgspec.field(default_factory=StreamOptions)
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: Any = None
    n: int | None = None
    logit_bias: dict[str, Any] = {}
    keep_alive: float | None = None


class ChatRequest(Generation, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[Message] = []
    max_completion_tokens: int | None = None
    response_format: dict[str, Any] = {}
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    reasoning: dict[str, str] = {}
    reasoning_effort: str = ""
    logprobs: bool = False
    top_logprobs: int = 0
    debug_render_only: bool = False


class CompletionRequest(Generation, kw_only=True):
    """POST /v1/completions."""

    prompt: str = ""
    suffix: str = ""
    logprobs: int | None = None


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """POST /v1/embeddings."""

    model: str = ""
    input: Any = None
    dimensions: int = 0
    encoding_format: str = ""
    keep_alive: float | None = None


def _count(value: Any, reading: Reading) -> int | None:
    """`logprobs` of a completion: a number; the chat route's bool is taken for one alternative or none."""
    return int(value) if isinstance(value, bool) else integer(value, reading)


_TOOL_CALL = Shape(
    "ToolCall",
    ToolCall,
    {
        "id": string,
        "index": integer,
        "type": string,
        "function": Shape("ToolCallFunction", dict, {"name": string, "arguments": string}, package="openai"),
    },
    package="openai",
)

_MESSAGE = Shape(
    "Message",
    Message,
    {
        "role": string,
        "content": anything,
        "reasoning": string,
        "reasoning_content": string,
        "tool_calls": listing("[]openai.ToolCall", _TOOL_CALL),
        "name": string,
        "tool_call_id": string,
    },
    package="openai",
)

_RESPONSE_FORMAT: Shape[dict[str, Any]] = Shape(
    "ResponseFormat",
    dict,
    {
        "type": string,
        "json_schema": Shape(
            "JsonSchema", dict, {"name": string, "schema": anything, "strict": boolean}, package="openai"
        ),
    },
    package="openai",
)

_GENERATION: dict[str, Reader] = {
    "model": string,
    "stream": boolean,
    "stream_options": Shape("StreamOptions", StreamOptions, {"include_usage": boolean}, package="openai"),
    "max_tokens": integer,
    "temperature": number,
    "top_p": number,
    "top_k": integer,
    "min_p": number,
    "seed": integer,
    "frequency_penalty": number,
    "presence_penalty": number,
    "stop": anything,
    "n": integer,
    "logit_bias": mapping,
    "keep_alive": keep_alive,
}

CHAT = Shape(
    "ChatCompletionRequest",
    ChatRequest,
    {
        **_GENERATION,
        "messages": listing("[]openai.Message", _MESSAGE),
        "max_completion_tokens": integer,
        "response_format": _RESPONSE_FORMAT,
        "tools": objects("[]api.Tool", "api.Tool"),
        "tool_choice": anything,
        "parallel_tool_calls": boolean,
        "reasoning": Shape("Reasoning", dict, {"effort": string}, package="openai"),
        "reasoning_effort": string,
        "logprobs": boolean,
        "top_logprobs": integer,
        "_debug_render_only": boolean,
    },
    package="openai",
)

COMPLETION = Shape(
    "CompletionRequest",
    CompletionRequest,
    {**_GENERATION, "prompt": string, "suffix": string, "logprobs": _count},
    package="openai",
)

EMBEDDING = Shape(
    "EmbedRequest",
    EmbeddingRequest,
    {
        "model": string,
        "input": anything,
        "dimensions": integer,
        "encoding_format": string,
        "keep_alive": keep_alive,
    },
    package="openai",
)
