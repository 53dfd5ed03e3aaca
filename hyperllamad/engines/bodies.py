"""Repairs of OpenAI bodies that more than one engine needs.  Pure; every function returns a new body.

Inside this house a body speaks vLLM's dialect: OpenAI's names, and top_k, min_p, repetition_penalty, repeat_last_n,
typical_p and chat_template_kwargs beside them.  fields.py says which there are and what they may hold.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from hyperllamad.core.errors import BadRequestError, UnsupportedError
from hyperllamad.core.models import Capability, Kind, Model, Settings
from hyperllamad.engines import fields
from hyperllamad.engines.families import Ways
from hyperllamad.engines.fields import Body

_RANK = 4  # GGUF's pooling_type for it
_VERBS = {Kind.CHAT: "chat", Kind.COMPLETION: "generate"}


def common(kind: Kind, body: Mapping[str, Any], model: Model, settings: Settings) -> Body:
    """What holds for every engine: sound fields, its own name of the model, always a limit, usage in streams.

    A limit is always sent because engines disagree about what none means (vLLM: 16 tokens on the completion route).
    Raises BadRequestError for a wrong value, UnsupportedError for what the model is not made for.
    """
    result = fields.checked(kind, body) | {"model": served_name(model)}
    if kind is Kind.RERANK and not ranks(model):
        raise UnsupportedError(f'"{model.name}" does not judge pairs of texts', hint="ask a reranker")
    if kind is Kind.EMBED and ranks(model):
        raise no_embeddings(model)
    if kind in {Kind.EMBED, Kind.RERANK}:
        return result
    if embeds(model):
        raise UnsupportedError(f'"{model.name}" does not support {_VERBS[kind]}', hint="it gives embeddings only")
    if result.get("repetition_penalty", 1.0) == 0:
        del result["repetition_penalty"]  # no meaning anywhere; some engines divide by it
    _nucleus(result)
    _limit(result, context(model, settings))
    if result.get("stream"):
        result["stream_options"] = {"include_usage": True}
    if not result.get("stop"):
        result.pop("stop", None)
    if result.get("response_format") == {"type": "text"}:
        del result["response_format"]
    if result.get("top_logprobs") and not result.get("logprobs"):
        result["logprobs"] = True
    _tools(result)
    return result


def served_name(model: Model) -> str:
    """What the model is called inside its engine."""
    return model.digest[:12]


def embeds(model: Model) -> bool:
    """Whether the model is run for embeddings, and for nothing else."""
    return Capability.EMBEDDING in model.capabilities and Capability.COMPLETION not in model.capabilities


def ranks(model: Model) -> bool:
    """Whether it judges how well a text answers a query (a cross-encoder): such a model gives no vectors."""
    pooling = next((n for key, n in model.info.items() if key.endswith(".pooling_type")), None)
    return embeds(model) and (pooling == _RANK or model.architecture.endswith("ForSequenceClassification"))


def context(model: Model, settings: Settings) -> int:
    """Tokens of one sequence: no more than was asked for, and no more than the model was trained for."""
    return min(settings.context, model.context_length or settings.context)


def without(body: Body, names: Collection[str]) -> Body:
    """The body less the fields that mean nothing to an engine."""
    return {key: value for key, value in body.items() if key not in names}


def no_embeddings(model: Model) -> UnsupportedError:
    """What to answer when embeddings are asked of a model that writes texts, where the engine could not say it."""
    return UnsupportedError(f'"{model.name}" does not support embeddings', hint="ask an embedding model")


def check_images(body: Mapping[str, Any], model: Model) -> None:
    """Raises UnsupportedError for images that the model cannot see, on engines that would not say so themselves."""
    if Capability.VISION in model.capabilities:
        return
    contents = [message.get("content") for message in body.get("messages", ())]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    if any(isinstance(part, dict) and part.get("type") == "image_url" for part in parts):
        hint = "ask a model that has the capability vision"
        raise UnsupportedError(f'"{model.name}" does not support images', hint=hint)


def inserted(body: Body, model: Model, ways: Ways) -> Body:
    """A prompt and its suffix as one prompt, in the words the model was trained with."""
    suffix = body.pop("suffix", "")
    if not suffix:
        return body
    if Capability.INSERT not in model.capabilities or not ways.insert:
        raise no_insert(model)
    if not isinstance(body.get("prompt"), str):
        raise BadRequestError("`suffix` needs a `prompt` that is one text")
    sides = {"{prefix}": body["prompt"], "{suffix}": suffix}
    return body | {"prompt": re.sub(r"\{(?:prefix|suffix)\}", lambda found: sides[found[0]], ways.insert)}


def no_insert(model: Model) -> UnsupportedError:
    return UnsupportedError(
        f"{model.name} does not support insert", hint="ask a code model that was trained to fill gaps, such as a coder"
    )


def thinking(body: Body, ways: Ways) -> Body:
    """The switch for reasoning under the name this family's chat template gives it."""
    given = body.get("chat_template_kwargs") or {}
    if not ways.thinking or "enable_thinking" not in given:
        return body
    return body | {"chat_template_kwargs": {ways.thinking: given["enable_thinking"], **given}}


def vocabulary(model: Model) -> int:
    """How many tokens the model has; 0 when its files do not say."""
    return next((n for key, n in model.info.items() if key.endswith(".vocab_size") and isinstance(n, int)), 0)


def _nucleus(body: Body) -> None:
    """top_p 0 keeps the likeliest token alone, which vLLM takes only as top_k 1."""
    if body.get("top_p") == 0:
        del body["top_p"]
        body["top_k"] = 1


def _limit(body: Body, most: int) -> None:
    asked = body.pop("max_completion_tokens", body.get("max_tokens", most))
    body["max_tokens"] = min(max(asked, 1), most)
    if "min_tokens" in body:
        body["min_tokens"] = min(body["min_tokens"], body["max_tokens"])


def _tools(body: Body) -> None:
    """Tools that may not be called are left out, and so is a choice among none; raises BadRequestError.

    A tool by name becomes a call that must be made with no other tool to choose, because llama.cpp knows no names.
    """
    choice, tools = body.get("tool_choice", "auto"), body.get("tools") or []
    if isinstance(choice, dict):
        wanted = choice["function"]["name"]
        tools = [tool for tool in tools if tool["function"]["name"] == wanted]
        if not tools:
            raise BadRequestError(f"`tool_choice` names {wanted}, which is not among the `tools`")
        body |= {"tools": tools, "tool_choice": "required"}
    if choice == "required" and not tools:
        raise BadRequestError("`tool_choice` asks for a call, and there are no `tools`")
    if choice == "none" or not tools:
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            body.pop(name, None)
