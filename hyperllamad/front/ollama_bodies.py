"""Ollama requests turned into OpenAI bodies.  Pure: a request, a model and options in; a dict for the engine out.

The dict says what was asked in the widest OpenAI dialect (vLLM's names where OpenAI has none); each engine's `body`
then leaves out or repairs what it does not understand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.models import Capability, Model
from hyperllamad.front import ollama_options, thinking
from hyperllamad.front.chat_body import STREAMING
from hyperllamad.front.ollama_requests import Asked, ChatRequest, GenerateRequest, Message


class BadFormatError(HyperLlamaError):
    """`format` is neither "json" nor a schema; Ollama answers 500 to it, not 400."""

    code = "bad_format"
    status = 500

    def __init__(self, given: Any) -> None:
        raw = msgspec.json.encode(given).decode()
        quoted = msgspec.json.encode(raw).decode()
        super().__init__(f'invalid format: {quoted}; expected "json" or a valid JSON Schema object')


def chat(request: ChatRequest, model: Model, options: Mapping[str, Any], context: int) -> dict[str, Any]:
    """The body for /v1/chat/completions; raises BadFormatError."""
    messages = [*_begun(model), *request.messages]
    if model.system and request.messages[0].role != "system":
        messages.insert(0, Message(role="system", content=model.system))
    body = _base(request, model, options, ollama_options.max_tokens(options, context, zero=1))
    body["messages"] = _messages(messages)
    if request.tools:
        body["tools"] = request.tools
    return body


def generate(request: GenerateRequest, model: Model, options: Mapping[str, Any], context: int) -> dict[str, Any]:
    """The body for a prompt that the model's chat template is laid around; raises BadFormatError."""
    begun = [] if request.context else _begun(model)
    messages = [*begun, Message(role="user", content=request.prompt, images=request.images)]
    if system := request.system or model.system:
        messages.insert(0, Message(role="system", content=system))
    body = _base(request, model, options, ollama_options.max_tokens(options, context, zero=1))
    body["messages"] = _messages(messages)
    return body


def completion(
    request: GenerateRequest, options: Mapping[str, Any], context: int, prompt: str | Sequence[int]
) -> dict[str, Any]:
    """The body for /v1/completions: a prompt that is used as it is (text or token ids); raises BadFormatError."""
    body = ollama_options.sampling(options)
    _limit(body, ollama_options.max_tokens(options, context, zero=-1))
    if response_format := _response_format(request.format):
        body["response_format"] = response_format
    if request.logprobs:
        body["logprobs"] = request.top_logprobs
    if request.suffix:
        body["suffix"] = request.suffix
    return body | STREAMING | {"prompt": prompt}


def _base(request: Asked, model: Model, options: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """What a body for the chat route holds besides the messages."""
    body = ollama_options.sampling(options)
    _limit(body, limit)
    if response_format := _response_format(request.format):
        body["response_format"] = response_format
    if request.logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = request.top_logprobs
    if Capability.THINKING in model.capabilities:
        body |= thinking.arguments(request.think)
    return body | STREAMING


def _limit(body: dict[str, Any], limit: int | None) -> None:
    if limit is not None:
        body["max_tokens"] = limit


def _response_format(given: Any) -> dict[str, Any] | None:
    if given is None or given == "":
        return None
    if given == "json":
        return {"type": "json_object"}
    if isinstance(given, dict):
        return {"type": "json_schema", "json_schema": {"name": "format", "schema": given}}
    raise BadFormatError(given)


# -- messages ----------------------------------------------------------------------------------------------------------


def _begun(model: Model) -> list[Message]:
    """The conversation that the model comes with."""
    return [Message(role=turn.role, content=turn.content) for turn in model.messages]


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """OpenAI messages; calls without an id get one, and the results that follow are matched to them in order."""
    result: list[dict[str, Any]] = []
    unanswered: list[tuple[str, str]] = []  # (id, name of the function) of calls not yet answered
    for place, message in enumerate(messages):
        item: dict[str, Any] = {"role": message.role, "content": _content(message)}
        if message.tool_calls:
            item["tool_calls"] = [
                {
                    "id": call.id or f"call_{place}_{i}",
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": msgspec.json.encode(call.function.arguments).decode(),
                    },
                }
                for i, call in enumerate(message.tool_calls)
            ]
            unanswered += [(call["id"], call["function"]["name"]) for call in item["tool_calls"]]
        if message.role == "tool":
            item["tool_call_id"] = _answered(message, unanswered)
            if message.tool_name:
                item["name"] = message.tool_name
        result.append(item)
    return result


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.content
    parts: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content else []
    return parts + [{"type": "image_url", "image_url": {"url": _data_uri(image)}} for image in message.images]


# The first characters of base64 give the first bytes away.
_IMAGE_TYPES = (("/9j/", "image/jpeg"), ("iVBORw", "image/png"), ("UklGR", "image/webp"), ("R0lGOD", "image/gif"))


def _data_uri(image: str) -> str:
    kind = next((mime for start, mime in _IMAGE_TYPES if image.startswith(start)), "image/jpeg")
    return f"data:{kind};base64,{image}"


def _answered(result: Message, unanswered: list[tuple[str, str]]) -> str:
    """The id of the call that `result` answers: the one it names, else the oldest of that function, else the oldest."""
    if result.tool_call_id:
        unanswered[:] = [call for call in unanswered if call[0] != result.tool_call_id]
        return result.tool_call_id
    if not unanswered:
        return "call_0"
    match = next((call for call in unanswered if call[1] == result.tool_name), unanswered[0])
    unanswered.remove(match)
    return match[0]
