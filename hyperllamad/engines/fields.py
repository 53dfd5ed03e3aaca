"""The fields a body may hold, and what each may contain.  Pure; knows nothing of any engine.

What no engine here is known to understand is left out, as Ollama does with what it does not know.  A number out of its
range is brought to the edge, since Ollama's clients send what OpenAI's servers refuse; what is of another kind, or
means nothing at the edge, is refused with a sentence, so that an engine is never the one to find out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hyperllamad.core.errors import BadRequestError
from hyperllamad.core.models import Kind

Body = dict[str, Any]
Check = Callable[[str, Any], Any]

MOST_LOGPROBS = 20  # alternatives to a token; OpenAI's limit, and vLLM's unless told otherwise
MOST_ANSWERS = 128  # `n`; OpenAI's limit
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")  # vLLM's and MAX's

_INT32 = (1 << 31) - 1


def checked(kind: Kind, body: Mapping[str, Any]) -> Body:
    """The fields that are known on this route, with sound values; raises BadRequestError naming the field."""
    return {
        name: check(name, body[name])
        for name, check in _FIELDS[kind].items()
        if name in body and body[name] is not None
    }


def _wrong(name: str, wanted: str) -> BadRequestError:
    return BadRequestError(f"`{name}` must be {wanted}")


def _number(least: float, most: float) -> Check:
    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise _wrong(name, "a number")
        return min(max(value, least), most)

    return check


def _integer(least: int, most: int) -> Check:
    def check(name: str, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON has one kind of number, and some clients write 40.0
        if type(value) is not int:
            raise _wrong(name, "a whole number")
        return min(max(value, least), most)

    return check


def _within(least: int, most: int) -> Check:
    """A whole number where the edge would not be what was asked."""
    whole = _integer(-_INT32, _INT32)

    def check(name: str, value: Any) -> int:
        number: int = whole(name, value)
        if not least <= number <= most:
            raise _wrong(name, f"between {least} and {most}")
        return number

    return check


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "true or false")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "a text")
    return value


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, "an object")
    return value


def _objects(name: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _wrong(name, "a list of objects")
    return value


def _messages(name: str, value: Any) -> list[dict[str, Any]]:
    if not _objects(name, value):
        raise _wrong(name, "a list of at least one message")
    return list(value)


def _stop(name: str, value: Any) -> list[str]:
    """As a list, without the empty strings that vLLM refuses."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _wrong(name, "a text or a list of texts")
    return [text for text in texts if text]


def _texts(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise _wrong(name, "a list of at least one text")
    return value


def _ids(value: Any) -> bool:
    """Of 31 bits: an engine would take a longer one for another token."""
    return (
        isinstance(value, list) and bool(value) and all(type(token) is int and 0 <= token <= _INT32 for token in value)
    )


def _prompt(name: str, value: Any) -> str | list[Any]:
    """A text, texts, the token ids of one or those of several."""
    many = isinstance(value, list) and bool(value)
    if isinstance(value, str) or _ids(value) or (many and all(isinstance(text, str) for text in value)):
        return value  # type: ignore[no-any-return]
    if many and all(_ids(part) for part in value):
        return list(value)
    raise _wrong(name, "a text, a list of texts, or token ids")


def _token_ids(name: str, value: Any) -> list[int]:
    if value and not _ids(value):
        raise _wrong(name, "a list of token ids")
    return list(value)


def _bias(name: str, value: Any) -> dict[str, float]:
    number = _number(-100, 100)
    if not all(str(token).isdecimal() and str(token).isascii() for token in _object(name, value)):
        raise _wrong(name, "an object from token ids to numbers")
    return {str(token): number(name, bias) for token, bias in value.items()}


def _logprobs(name: str, value: Any) -> int:
    """Of the completion route: how many alternatives, where true is one."""
    return int(value) if isinstance(value, bool) else _within(0, MOST_LOGPROBS)(name, value)


def _effort(name: str, value: Any) -> str:
    if value not in EFFORTS:
        raise _wrong(name, f"one of {', '.join(EFFORTS)}")
    return str(value)


def _tools(name: str, value: Any) -> list[dict[str, Any]]:
    for tool in _objects(name, value):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _wrong(name, 'a list of {"type": "function", "function": {"name": ...}}')
    return list(value)


def _tool_choice(name: str, value: Any) -> str | dict[str, Any]:
    """One of the three words, or the name of a function."""
    match value:
        case "none" | "auto" | "required":
            return str(value)
        case {"type": "function", "function": {"name": str() as wanted}}:
            return {"type": "function", "function": {"name": wanted}}
    raise _wrong(name, 'none, auto, required or {"type": "function", "function": {"name": ...}}')


def _response_format(name: str, value: Any) -> dict[str, Any]:
    """With a name for the schema, which vLLM insists on."""
    match value:
        case {"type": "text" | "json_object" as kind}:
            return {"type": kind}
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema, **rest}}:
            return {"type": "json_schema", "json_schema": {"name": "format", **rest, "schema": schema}}
    raise _wrong(name, 'of type text, json_object or json_schema, the last with {"json_schema": {"schema": {...}}}')


def _encoding(name: str, value: Any) -> str:
    if value not in {"float", "base64"}:
        raise _wrong(name, "float or base64")
    return str(value)


_SAMPLING: dict[str, Check] = {
    "temperature": _number(0.0, 2.0),
    "top_p": _number(0.0, 1.0),
    "top_k": _integer(0, _INT32),  # 0 and below: off
    "min_p": _number(0.0, 1.0),
    "typical_p": _number(0.0, 1.0),
    "repetition_penalty": _number(0.0, 100.0),
    "repeat_last_n": _integer(-1, _INT32),
    "presence_penalty": _number(-2.0, 2.0),
    "frequency_penalty": _number(-2.0, 2.0),
    "seed": _integer(-(1 << 63), (1 << 64) - 1),
    "stop": _stop,
    "stop_token_ids": _token_ids,
    "ignore_eos": _flag,
    "min_tokens": _integer(0, _INT32),
    "max_tokens": _integer(0, _INT32),
    "logit_bias": _bias,
    "n": _within(1, MOST_ANSWERS),
    "response_format": _response_format,
    "stream": _flag,
    "return_token_ids": _flag,
}
_FIELDS: dict[Kind, dict[str, Check]] = {
    Kind.CHAT: _SAMPLING
    | {
        "messages": _messages,
        "max_completion_tokens": _integer(0, _INT32),
        "tools": _tools,
        "tool_choice": _tool_choice,
        "parallel_tool_calls": _flag,
        "logprobs": _flag,
        "top_logprobs": _within(0, MOST_LOGPROBS),
        "chat_template_kwargs": _object,
        "reasoning_effort": _effort,
    },
    Kind.COMPLETION: _SAMPLING | {"prompt": _prompt, "suffix": _text, "echo": _flag, "logprobs": _logprobs},
    Kind.EMBED: {"input": _prompt, "encoding_format": _encoding},
    Kind.RERANK: {"query": _text, "documents": _texts},
}
