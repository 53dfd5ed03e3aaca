"""Repairs of OpenAI bodies that more than one engine needs.  Pure; every function returns a new body.

Inside this house a body speaks vLLM's dialect: OpenAI's names, and top_k, min_p, repetition_penalty, repeat_last_n,
typical_p and chat_template_kwargs beside them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hyperllamad.core.errors import UnsupportedError
from hyperllamad.core.models import Capability, Kind, Model, Settings

Body = dict[str, Any]
# The range of each number that OpenAI's servers check; Ollama's do not, so what is outside is brought to the edge.
_RANGES = {
    "temperature": (0.0, 2.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}


def common(kind: Kind, body: Mapping[str, Any], model: Model, settings: Settings) -> Body:
    """What holds for every engine: its own name of the model, numbers in range, always a limit, usage in streams.

    A limit is always sent because engines disagree about what none means (vLLM: 16 tokens on the completion route).
    """
    result = {key: value for key, value in body.items() if value is not None} | {"model": served_name(model)}
    if kind is Kind.EMBED:
        if Capability.EMBEDDING not in model.capabilities:
            raise UnsupportedError(f"{model.name} does not support embeddings", hint="ask an embedding model")
        return result
    for key, (least, most) in _RANGES.items():
        if key in result:
            result[key] = min(max(result[key], least), most)
    if result.get("repetition_penalty", 1.0) <= 0:
        del result["repetition_penalty"]  # no meaning anywhere; some engines divide by it
    if result.get("top_k", 0) < 0:
        result["top_k"] = 0  # off
    _nucleus(result)
    _limit(result, settings)
    result.pop("stream_options", None)
    if result.get("stream"):
        result["stream_options"] = {"include_usage": True}
    if stop := _stop(result.pop("stop", None)):
        result["stop"] = stop
    if result.pop("suffix", ""):
        raise UnsupportedError(f"{model.name} does not support insert", hint="send the request without `suffix`")
    return result


def served_name(model: Model) -> str:
    """What the model is called inside its engine."""
    return model.digest[:12]


def without(body: Body, names: Collection[str]) -> Body:
    """The body less the fields that mean nothing to an engine."""
    return {key: value for key, value in body.items() if key not in names}


def _nucleus(body: Body) -> None:
    """top_p 0 keeps the likeliest token alone, which vLLM takes only as top_k 1; from 1 on nothing is left out."""
    if "top_p" not in body:
        return
    if body["top_p"] <= 0:
        del body["top_p"]
        body["top_k"] = 1
    else:
        body["top_p"] = min(body["top_p"], 1.0)


def _limit(body: Body, settings: Settings) -> None:
    asked = int(body.pop("max_completion_tokens", body.get("max_tokens", settings.context)))
    body["max_tokens"] = min(max(asked, 1), settings.context)


def _stop(stop: object) -> list[str]:
    """As a list, without the empty strings that vLLM refuses."""
    texts = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    return [text for text in texts if text]
