"""What engines stream: the few fields of an OpenAI chunk that anybody here reads, for chat and completion alike.

msgspec skips everything else without building it.  The forms are those of vLLM 0.32, MAX 26.7 and llama.cpp's server
of October 2026, as recorded in tests/front/recordings.
"""

from __future__ import annotations

import msgspec


class _Part(msgspec.Struct, gc=False):
    pass


class FunctionDelta(_Part):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(_Part):
    """A piece of a call; the pieces of one call share `index`."""

    index: int = 0
    id: str | None = None
    function: FunctionDelta | None = None


class Delta(_Part):
    """`reasoning` is vLLM's and MAX's name, `reasoning_content` llama.cpp's (and theirs, once)."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class TokenAlternative(_Part):
    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None


class TokenLogprob(TokenAlternative):
    top_logprobs: list[TokenAlternative] | None = None


class Logprobs(_Part):
    """Chat form (`content`), or the older completion form (the three lists; MAX leaves `tokens` out)."""

    content: list[TokenLogprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class Choice(_Part):
    """`delta` on the chat route, `text` on the completion route; ids only where `return_token_ids` asks for them."""

    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class PromptDetails(_Part):
    cached_tokens: int | None = None


class Usage(_Part):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Timings(_Part):
    """llama.cpp's, in milliseconds."""

    prompt_ms: float | None = None
    predicted_ms: float | None = None


class RequestMetrics(_Part):
    """vLLM's, in milliseconds (--enable-per-request-metrics)."""

    queue_time_ms: float | None = None
    time_to_first_token_ms: float | None = None
    generation_time_ms: float | None = None


class ErrorBody(_Part):
    """What an engine says when it gives an answer up; a code may be a number or a text."""

    message: str = ""
    code: int | str | None = None


class Chunk(_Part):
    """One event."""

    choices: list[Choice] = []
    usage: Usage | None = None
    timings: Timings | None = None
    metrics: RequestMetrics | None = None
    error: ErrorBody | str | None = None
    prompt_token_ids: list[int] | None = None  # vLLM's place for it on the chat route


chunk = msgspec.json.Decoder(Chunk).decode


def parts(choice: Choice) -> tuple[str | None, str | None, list[ToolCallDelta] | None]:
    """(text, thinking, pieces of tool calls) of a choice of either route."""
    delta = choice.delta
    if delta is None:
        return choice.text, None, None
    return delta.content, delta.reasoning or delta.reasoning_content, delta.tool_calls
