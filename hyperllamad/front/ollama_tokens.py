"""POST /api/tokenize and /api/detokenize: a text as the model's tokens, and back.  Ours: Ollama has neither.

The engine's tokenizer answers, so the tokens are those it would count; an engine that shows none is named in a refusal.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from quart import Blueprint, Response

from hyperllamad.core.errors import BadRequestError, ModelNotFoundError, UnsupportedError
from hyperllamad.core.models import Model
from hyperllamad.engines import bodies
from hyperllamad.front import body, gojson, ollama_checks, relay, replies
from hyperllamad.front.ports import Services, Upstream
from hyperllamad.front.request_scope import held, record
from hyperllamad.front.shapes import Reader, Reading, Shape, boolean, integer, keep_alive, listing, string

_LARGEST = 2**31 - 1  # engines keep ids in 32 bits, and one of them takes a larger one for another


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """POST /api/tokenize; the text may be called `content`, `text` or `prompt`."""

    model: str = ""
    name: str = ""
    content: str | None = None
    text: str | None = None
    prompt: str | None = None
    add_special: bool = False  # with the tokens the model wants at the beginning and the end
    parse_special: bool = True  # <|im_start|> is one token, and not eight
    keep_alive: float | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """POST /api/detokenize."""

    model: str = ""
    name: str = ""
    tokens: list[int] | None = None
    keep_alive: float | None = None


class TokenizeReply(msgspec.Struct, kw_only=True):
    """POST /api/tokenize; durations are nanoseconds."""

    model: str
    tokens: list[int]
    total_duration: int
    load_duration: int


class DetokenizeReply(msgspec.Struct, kw_only=True):
    """POST /api/detokenize; durations are nanoseconds."""

    model: str
    content: str
    total_duration: int
    load_duration: int


class _Engines(msgspec.Struct):
    """What llama.cpp (`content`) and vLLM (`prompt`) answer."""

    tokens: list[int] = []
    content: str = ""
    prompt: str = ""


def _maybe(value: Any, reading: Reading) -> str | None:
    return None if value is None else string(value, reading)


_NAMED: dict[str, Reader] = {"model": string, "name": string, "keep_alive": keep_alive}
TOKENIZE = Shape(
    "TokenizeRequest",
    TokenizeRequest,
    {**_NAMED, **dict.fromkeys(("content", "text", "prompt"), _maybe)}
    | {"add_special": boolean, "parse_special": boolean},
)
DETOKENIZE = Shape("DetokenizeRequest", DetokenizeRequest, {**_NAMED, "tokens": listing("[]int", integer)})

_decode = msgspec.json.Decoder(_Engines).decode


class OllamaTokenRoutes:
    """Both routes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def blueprint(self) -> Blueprint:
        routes = Blueprint("ollama_tokens", __name__)
        routes.add_url_rule("/api/tokenize", view_func=self.tokenize, methods=["POST"])
        routes.add_url_rule("/api/detokenize", view_func=self.detokenize, methods=["POST"])
        return routes

    async def tokenize(self) -> Response:
        asked = await body.receive(TOKENIZE)
        text = next((text for text in (asked.content, asked.text, asked.prompt) if text is not None), None)
        model = self._find(asked.model or asked.name)
        if text is None:
            raise BadRequestError("content is required")

        async def serve(upstream: Upstream) -> Response:
            granted = time.perf_counter_ns()
            named = {"content": text, "prompt": text}  # each engine ignores the other's names
            how = {"add_special": asked.add_special, "add_special_tokens": asked.add_special}
            found = await _ask(upstream, "tokenize", named | how | {"parse_special": asked.parse_special})
            record().prompt_tokens = len(found.tokens)
            shown = asked.model or asked.name
            return replies.json(gojson.encode(TokenizeReply(model=shown, tokens=found.tokens, **_times(granted))))

        return await relay.with_engine(self._services, model, asked.keep_alive, serve)

    async def detokenize(self) -> Response:
        asked = await body.receive(DETOKENIZE)
        model = self._find(asked.model or asked.name)
        if asked.tokens is None:
            raise BadRequestError("tokens is required")
        tokens = _known(asked.tokens, model)

        async def serve(upstream: Upstream) -> Response:
            granted = time.perf_counter_ns()
            found = await _ask(upstream, "detokenize", {"tokens": tokens})
            text, shown = found.content or found.prompt, asked.model or asked.name
            return replies.json(gojson.encode(DetokenizeReply(model=shown, content=text, **_times(granted))))

        return await relay.with_engine(self._services, model, asked.keep_alive, serve)

    def _find(self, name: str) -> Model:
        if not name:
            raise ModelNotFoundError("")
        model = ollama_checks.find(self._services.catalog, name)
        record().model = model.name.short
        return model


def _known(tokens: list[int], model: Model) -> list[int]:
    """The ids, when the model has them all: engines fail in their own ways at one that does not exist."""
    size = bodies.vocabulary(model) or _LARGEST
    if wrong := [token for token in tokens if not 0 <= token < size]:
        raise BadRequestError(f"{wrong[0]} is no token of this model", hint=f"its tokens are 0 to {size - 1}")
    return tokens


async def _ask(upstream: Upstream, what: str, sent: dict[str, Any]) -> _Engines:
    path = upstream.engine.probe.extra.get(what)
    if path is None:
        hint = "run the model on llama.cpp or vLLM, which do"
        raise UnsupportedError(f"{upstream.engine.title} does not show its tokenizer", hint=hint)
    record().inference = True
    raw = await relay.ask_path(upstream, path, sent, held())
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as unreadable:
        raise relay.EngineFaultError(f"{upstream.engine.title} sent what cannot be read: {unreadable}") from None


def _times(granted: int) -> dict[str, int]:
    arrived = record().arrived
    return {"total_duration": time.perf_counter_ns() - arrived, "load_duration": granted - arrived}
