"""What the compatible dialects answer, for the OpenAPI document only: their replies are put together as plain data.

tests/front/test_openapi.py holds real replies of every route against these, so that they stay true.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# -- errors ------------------------------------------------------------------------------------------------------------


class OllamaError(msgspec.Struct):
    """Every failure of a native route, and the last line of a stream that failed."""

    error: str


class OpenAIErrorBody(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct):
    """Every failure of a route of OpenAI's, and the last event but one of a stream that failed."""

    error: OpenAIErrorBody


class AnthropicErrorBody(msgspec.Struct):
    type: str
    message: str


class AnthropicError(msgspec.Struct):
    """Every failure of a route of Anthropic's, and the last event of a stream that failed."""

    type: Literal["error"]
    error: AnthropicErrorBody
    request_id: str


# -- OpenAI ------------------------------------------------------------------------------------------------------------


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CalledFunction(msgspec.Struct):
    """`arguments` is the JSON text of an object."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    id: str
    index: int
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(msgspec.Struct, kw_only=True):
    role: Literal["assistant"]
    content: str
    reasoning: str = ""
    tool_calls: list[ToolCall] = []


class ChatChoice(msgspec.Struct, kw_only=True):
    index: int
    message: ChatMessage
    finish_reason: Literal["stop", "length", "tool_calls"] | None
    logprobs: dict[str, Any] | None = None


class ChatCompletion(msgspec.Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChunkChoice(msgspec.Struct, kw_only=True):
    """`delta` holds pieces: role, content, reasoning, tool_calls."""

    index: int
    delta: dict[str, Any]
    finish_reason: Literal["stop", "length", "tool_calls"] | None
    logprobs: dict[str, Any] | None = None


class ChatCompletionChunk(msgspec.Struct, kw_only=True):
    """The data of an event; the last event's data is `[DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class CompletionChoice(msgspec.Struct, kw_only=True):
    text: str
    index: int
    finish_reason: Literal["stop", "length", "load"] | None
    logprobs: dict[str, Any] | None = None


class Completion(msgspec.Struct, kw_only=True):
    """Whole, and as the data of an event; the last event's data is `[DONE]`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class Embedding(msgspec.Struct):
    """`embedding` is a list of numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    embedding: list[float] | str
    index: int


class PromptUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: PromptUsage


class ModelItem(msgspec.Struct, kw_only=True):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int = 0


class ModelList(msgspec.Struct):
    object: Literal["list"]
    data: list[ModelItem]


class RankedDocument(msgspec.Struct):
    text: str


class RankedItem(msgspec.Struct, kw_only=True):
    index: int
    relevance_score: float
    document: RankedDocument | None = None


class RankedList(msgspec.Struct):
    """The most relevant first."""

    object: Literal["list"]
    model: str
    results: list[RankedItem]
    usage: PromptUsage


class ResponseUsage(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class ResponseObject(msgspec.Struct, kw_only=True):
    """Items of `output` are of type reasoning, message or function_call; see OpenAI's reference for the rest."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[dict[str, Any]]
    usage: ResponseUsage | None
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None


class ResponseEvent(msgspec.Struct):
    """The data of an event; `type` says what else is in it, as in OpenAI's reference."""

    type: str
    sequence_number: int


# -- Anthropic ---------------------------------------------------------------------------------------------------------


class AnthropicUsage(msgspec.Struct):
    input_tokens: int
    output_tokens: int


class AnthropicMessage(msgspec.Struct):
    """Blocks of `content` are of type text, thinking or tool_use."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: Literal["end_turn", "max_tokens", "tool_use"]
    usage: AnthropicUsage


class AnthropicEvent(msgspec.Struct):
    """The data of an event; `type` says what else is in it, as in Anthropic's reference."""

    type: str


class TokenCount(msgspec.Struct):
    input_tokens: int


# -- the rest ----------------------------------------------------------------------------------------------------------


class Version(msgspec.Struct):
    version: str


class Health(msgspec.Struct):
    status: Literal["ok", "closing"]
    version: str


class Step(msgspec.Struct, kw_only=True):
    """A line of a long job; `total` and `completed` are bytes."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


class Vector(msgspec.Struct):
    embedding: list[float]


class CloudStatus(msgspec.Struct):
    cloud: dict[str, Any]


class Recommendations(msgspec.Struct):
    recommendations: list[dict[str, Any]]
