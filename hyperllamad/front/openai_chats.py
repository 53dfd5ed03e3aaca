"""OpenAI requests turned into chats.  Pure; what is wrong raises BadRequestError, in Ollama's words if it has any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hyperllamad.core.errors import BadRequestError
from hyperllamad.core.models import Model
from hyperllamad.front import ollama_options
from hyperllamad.front.chat_body import MOST_TOP_LOGPROBS, Chat, joined
from hyperllamad.front.compat_body import BASE64, kind
from hyperllamad.front.openai_requests import ChatRequest, CompletionRequest, Generation, Message
from hyperllamad.front.thinking import Think

MOST_ANSWERS = 128  # OpenAI's own limit of `n`

_EFFORTS: dict[str, Think] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}
_IMAGES = tuple(f"data:{mime};base64," for mime in ("image/jpeg", "image/jpg", "image/png", "image/webp"))
_object = msgspec.json.Decoder(dict[str, Any]).decode


def of_chat(request: ChatRequest) -> Chat:
    """The chat of a /v1/chat/completions request."""
    if not request.messages:
        raise BadRequestError("[] is too short - 'messages'")
    limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    chat = Chat(
        messages=messages(request.messages),
        options=options(request, limit, _chat_stops(request.stop)),
        think=think(request.reasoning.get("effort") or request.reasoning_effort),
        tools=functions(request.tools),
        tool_choice=tool_choice(request.tool_choice),
        parallel_tool_calls=request.parallel_tool_calls,
        response_format=_response_format(request.response_format),
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs,
        logit_bias=_logit_bias(request.logit_bias),
    )
    _check_ranges(request.n, request.top_logprobs)
    return chat


def of_completion(request: CompletionRequest) -> Chat:
    """A /v1/completions request: as in Ollama its prompt is what the user says, with the chat template around it."""
    alternatives = request.logprobs
    chat = Chat(
        messages=[{"role": "user", "content": request.prompt}],
        options=options(request, request.max_tokens, _completion_stops(request.stop)),
        logprobs=alternatives is not None,
        top_logprobs=alternatives or 0,
        logit_bias=_logit_bias(request.logit_bias),
    )
    _check_ranges(request.n, alternatives or 0)
    return chat


def fill_in(request: CompletionRequest, chat: Chat, model: Model, context: int) -> dict[str, Any]:
    """The body for /v1/completions inside the house: prompt and suffix as they are."""
    merged = ollama_options.merge(model.parameters, chat.options)
    body = ollama_options.sampling(merged) | {"prompt": request.prompt, "suffix": request.suffix}
    if (limit := ollama_options.max_tokens(merged, context, zero=-1)) is not None:
        body["max_tokens"] = limit
    if request.logprobs is not None:
        body["logprobs"] = request.logprobs
    if chat.logit_bias:
        body["logit_bias"] = chat.logit_bias
    return body


def bodies(body: dict[str, Any], n: int | None) -> list[dict[str, Any]]:
    """A body for each of `n` answers; a seed is counted up, or they would all be the same."""
    if n in (None, 1):
        return [body]
    return [body | ({"seed": body["seed"] + i} if "seed" in body else {}) for i in range(n or 1)]


def _check_ranges(n: int | None, top_logprobs: int) -> None:
    if n is not None and not 1 <= n <= MOST_ANSWERS:
        raise BadRequestError(f"n must be between 1 and {MOST_ANSWERS}")
    if not 0 <= top_logprobs <= MOST_TOP_LOGPROBS:
        raise BadRequestError(f"top_logprobs must be between 0 and {MOST_TOP_LOGPROBS}")


def options(request: Generation, limit: int | None, stops: list[str] | None) -> dict[str, Any]:
    """By Ollama's names.  Temperature and top_p are 1 when not said, as at OpenAI, whatever the model states."""
    said = {
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "top_p": request.top_p or 1.0 if isinstance(request, CompletionRequest) else _or_one(request.top_p),
        "top_k": request.top_k,
        "min_p": request.min_p,
        "seed": request.seed,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "num_predict": limit,
        "stop": stops,
    }
    return {name: value for name, value in said.items() if value is not None}


def _or_one(value: float | None) -> float:
    return 1.0 if value is None else value


def _chat_stops(stop: Any) -> list[str] | None:
    """What is no text is left out."""
    if isinstance(stop, str):
        return [stop]
    return [text for text in stop if isinstance(text, str)] if isinstance(stop, list) else None


def _completion_stops(stop: Any) -> list[str] | None:
    """What is no text is refused: the two routes of Ollama differ."""
    for text in stop if isinstance(stop, list) else [stop]:
        if not isinstance(text, str) and text is not None:
            raise BadRequestError(f"invalid type for 'stop' field: {kind(text)}")
    return _chat_stops(stop)


def think(effort: str) -> Think:
    """How hard to think, None when nothing is said."""
    if not effort:
        return None
    if effort not in _EFFORTS:
        shown = msgspec.json.encode(effort).decode()
        *most, last = (f'"{level}"' for level in ("minimal", "low", "medium", "high", "xhigh", "ultra", "max", "none"))
        raise BadRequestError(f"invalid reasoning value: {shown} (must be {', '.join(most)}, or {last})")
    return _EFFORTS[effort]


def functions(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools, when each is a function with a name; what else is said of them is the engine's to read."""
    for tool in tools:
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequestError("each of the tools must be a function with a name")
    return tools


def tool_choice(choice: Any) -> Any:
    """None, "auto", "none", "required", or an object that names a function."""
    if choice is None or choice in ("auto", "none", "required"):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else choice.get("name")  # the Responses API is flat
        if isinstance(name, str):
            return {"type": "function", "function": {"name": name}}
    raise BadRequestError('invalid tool_choice (must be "none", "auto", "required", or name a function)')


def _response_format(wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Types that are not known are ignored, as by Ollama."""
    if wanted.get("type") == "json_object":
        return {"type": "json_object"}
    if wanted.get("type") == "json_schema":
        return json_schema(wanted.get("json_schema") or {})
    return None


def json_schema(described: Mapping[str, Any]) -> dict[str, Any] | None:
    schema = described.get("schema")
    if not isinstance(schema, dict):
        return None
    return {"type": "json_schema", "json_schema": {"name": described.get("name") or "format", "schema": schema}}


def _logit_bias(given: Mapping[str, Any]) -> dict[str, float] | None:
    for token, bias in given.items():
        number = isinstance(bias, (int, float)) and not isinstance(bias, bool)
        if not token.isdecimal() or not number or not -100 <= bias <= 100:
            raise BadRequestError("logit_bias must give token ids a number between -100 and 100")
    return dict(given) or None


# -- messages ----------------------------------------------------------------------------------------------------------


def messages(given: Sequence[Message]) -> list[dict[str, Any]]:
    """In the form engines take.  A list of parts stays one message, where Ollama makes several of it."""
    functions: dict[str, str] = {}  # id of a call -> the function it called
    return [_message(message, functions) for message in given]


def _message(message: Message, functions: dict[str, str]) -> dict[str, Any]:
    # A developer speaks with the system's voice, and templates know only that one.
    role = "system" if message.role == "developer" else message.role
    made: dict[str, Any] = {"role": role, "content": _content(message)}
    if thought := message.reasoning or message.reasoning_content:
        made["reasoning_content"] = thought
    if message.tool_calls:
        made["tool_calls"] = [
            call_of(call.id, call.function.get("name", ""), call.function.get("arguments", ""))
            for call in message.tool_calls
        ]
        functions |= {call["id"]: call["function"]["name"] for call in made["tool_calls"]}
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    if name := message.name or functions.get(message.tool_call_id, ""):
        made["name"] = name
    return made


def call_of(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of an earlier turn; its arguments must be the JSON text of an object."""
    try:
        _object(arguments)
    except (msgspec.DecodeError, UnicodeError):
        raise BadRequestError("invalid tool call arguments") from None
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _content(message: Message) -> str | list[dict[str, Any]]:
    content = message.content
    if isinstance(content, str):
        return content
    if content is None and message.tool_calls:
        return ""
    if not isinstance(content, list):
        raise BadRequestError(f"invalid message content type: {kind(content)}")
    return joined([_part(part) for part in content])


def _part(part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise BadRequestError("invalid message format")
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if part.get("type") == "image_url":
        given = part.get("image_url")
        url = given.get("url") if isinstance(given, dict) else given
        if isinstance(url, str):
            return image(url)
    if part.get("type") == "input_audio":
        raise BadRequestError("audio input is not supported")
    raise BadRequestError("invalid message format")


def image(url: str) -> dict[str, Any]:
    """An image inside the request; nothing is fetched for a client."""
    if url.startswith(("http://", "https://")):
        raise BadRequestError("image URLs are not currently supported, please use base64 encoded data instead")
    start = next((start for start in (*_IMAGES, "data:;base64,") if url.startswith(start)), None)
    if start is None or not BASE64.fullmatch(url, len(start)):
        raise BadRequestError("invalid image input")
    if start == "data:;base64,":
        url = "data:image/jpeg;base64," + url.removeprefix(start)
    return {"type": "image_url", "image_url": {"url": url}}
