"""Ollama's `options`: which exist, of what type, and what each is called in an OpenAI body.  Pure.

Precedence: what Ollama does by default < the model's own parameters < the request.  Unknown names are never an error
(clients send options Ollama dropped years ago).  Defaults and types: Ollama's api/types.go and docs of August 2026.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from hyperllamad.core.errors import HyperLlamaError


class OptionTypeError(HyperLlamaError):
    """An option holds a value of the wrong type; Ollama answers 500 to it, not 400."""

    code = "option_type"
    status = 500


class Type(enum.Enum):
    """What an option may hold, by the word its error text uses."""

    INTEGER = "integer"
    FLOAT = "float32"
    BOOLEAN = "boolean"
    STRINGS = "array"


# Every option Ollama knows.  Those without a line in _SAMPLING say how to load or batch: here the engine's settings
# decide that, because restarting an engine for one request would cost every other client a minute.
_TYPES = {
    "num_ctx": Type.INTEGER,
    "num_batch": Type.INTEGER,
    "num_gpu": Type.INTEGER,
    "main_gpu": Type.INTEGER,
    "use_mmap": Type.BOOLEAN,
    "num_thread": Type.INTEGER,
    "draft_num_predict": Type.INTEGER,
    "num_keep": Type.INTEGER,
    "seed": Type.INTEGER,
    "num_predict": Type.INTEGER,
    "top_k": Type.INTEGER,
    "top_p": Type.FLOAT,
    "min_p": Type.FLOAT,
    "typical_p": Type.FLOAT,
    "repeat_last_n": Type.INTEGER,
    "temperature": Type.FLOAT,
    "repeat_penalty": Type.FLOAT,
    "presence_penalty": Type.FLOAT,
    "frequency_penalty": Type.FLOAT,
    "stop": Type.STRINGS,
}

# option -> (name in the body, Ollama's default).  What differs from the engines' own defaults is always sent.
_SAMPLING: dict[str, tuple[str, float]] = {
    "temperature": ("temperature", 0.8),
    "top_p": ("top_p", 0.9),
    "top_k": ("top_k", 40),
    "min_p": ("min_p", 0.0),
}
# option -> (name in the body, the value that changes nothing and is therefore left out).
_PENALTIES: dict[str, tuple[str, float]] = {
    "repeat_penalty": ("repetition_penalty", 1.0),
    "repeat_last_n": ("repeat_last_n", 64),
    "presence_penalty": ("presence_penalty", 0.0),
    "frequency_penalty": ("frequency_penalty", 0.0),
    "typical_p": ("typical_p", 1.0),
}


def merge(parameters: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The known options of a model and of a request, the request's winning; raises OptionTypeError."""
    merged = dict(_typed(parameters))
    merged.update(_typed(asked))
    return merged


def unknown(asked: Mapping[str, Any]) -> list[str]:
    """Names in `asked` that mean nothing here, for the log."""
    return [name for name in asked if name not in _TYPES]


def _typed(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _value(name, kind, value)
        for name, value in options.items()
        if value is not None and (kind := _TYPES.get(name)) is not None
    }


def _value(name: str, kind: Type, value: Any) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is Type.INTEGER and is_number:
        return int(value)  # cut, not rounded: 1.9 is 1
    if kind is Type.FLOAT and is_number:
        return value
    if kind is Type.BOOLEAN and isinstance(value, bool):
        return value
    if kind is Type.STRINGS and isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return value
        raise OptionTypeError(f'option "{name}" must be of an array of strings')
    raise OptionTypeError(f'option "{name}" must be of type {kind.value}')


def sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an OpenAI body that says how to pick tokens; engines drop or repair what they do not know."""
    body: dict[str, Any] = {name: options.get(option, default) for option, (name, default) in _SAMPLING.items()}
    for option, (name, neutral) in _PENALTIES.items():
        if (value := options.get(option, neutral)) != neutral:
            body[name] = value
    if (seed := options.get("seed", -1)) >= 0:
        body["seed"] = seed
    if stop := [text for text in options.get("stop", ()) if text]:
        body["stop"] = stop
    return body


def max_tokens(options: Mapping[str, Any], context: int, *, zero: int) -> int | None:
    """How many tokens may be generated in a context of `context` tokens (0 = not known); None = leave it open.

    A negative num_predict means "until the end": Ollama caps it at ten contexts because its engine shifts the context,
    ours stop where the context ends.  `zero` is what num_predict 0 stands for.
    """
    asked: int = options.get("num_predict", -1)
    if asked == 0:
        asked = zero
    if asked < 0:
        return context or None
    return min(asked, context) if context else asked
