"""Every route as the OpenAPI document tells of it: a table, which tests/front/test_openapi.py holds to the app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from hyperllamad.front import anthropic_requests as anthropic
from hyperllamad.front import ollama_embed as embed
from hyperllamad.front import ollama_requests as ollama
from hyperllamad.front import ollama_store_requests as store
from hyperllamad.front import ollama_tokens as tokens
from hyperllamad.front import ollama_wire as wire
from hyperllamad.front import openai_requests as openai
from hyperllamad.front import openapi_replies as reply
from hyperllamad.front import rerank, responses_requests
from hyperllamad.front.shapes import Shape

Struct = type[msgspec.Struct]
NDJSON, EVENTS, JSON, TEXT = "application/x-ndjson", "text/event-stream", "application/json", "text/plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path.  `answers`: content type -> what it holds, None where that has no schema."""

    tag: str  # whose API it is
    summary: str
    asks: tuple[Struct, Shape[Any]] | None = None  # the body: its Struct, and the fields that are read
    required: tuple[str, ...] = ()  # fields without which it fails
    answers: Mapping[str, Struct | None] | None = None
    status: int = 200
    error: Struct = reply.OllamaError
    fails: tuple[int, ...] = (400, 404)
    open: bool = False  # asked without an API key
    uploads: bool = False  # the body is bytes


def _ollama(summary: str, **more: Any) -> Route:
    return Route(tag="Ollama", summary=summary, **more)


def _openai(summary: str, **more: Any) -> Route:
    return Route(tag="OpenAI", summary=summary, error=reply.OpenAIError, **more)


def _anthropic(summary: str, **more: Any) -> Route:
    return Route(tag="Anthropic", summary=summary, error=reply.AnthropicError, **more)


def _server(summary: str, **more: Any) -> Route:
    return Route(tag="Server", summary=summary, fails=(), **more)


_CHAT = (400, 404, 429, 500, 503)  # of a route that uses an engine
_MESSAGES = (anthropic.MessagesRequest, anthropic.MESSAGES)
_TAGS = {JSON: wire.TagsReply}
_RUNNING = {TEXT: None}
_STEPS = {NDJSON: reply.Step, JSON: reply.Step}

ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/"): _server("Whether a server is there, in Ollama's words.", answers=_RUNNING, open=True),
    ("HEAD", "/"): _server("The same without the words.", open=True),
    ("GET", "/api/version"): _server(
        "The version of Ollama this server behaves like.", answers={JSON: reply.Version}, open=True
    ),
    ("HEAD", "/api/version"): _server("The same without the body.", open=True),
    ("GET", "/health"): _server(
        "200 while requests are taken, 503 before the end.", answers={JSON: reply.Health}, open=True
    ),
    ("HEAD", "/health"): _server("The same without the body.", open=True),
    ("GET", "/metrics"): _server("Counters for Prometheus.", answers={TEXT: None}),
    ("GET", "/openapi.json"): _server("This document.", answers={JSON: None}, open=True),
    ("POST", "/api/chat"): _ollama(
        "Answer a chat; without messages load the model, or with `keep_alive` 0 unload it.",
        asks=(ollama.ChatRequest, ollama.CHAT),
        required=("model",),
        answers={NDJSON: wire.ChatReply, JSON: wire.ChatReply},
        fails=_CHAT,
    ),
    ("POST", "/api/generate"): _ollama(
        "Go on from a prompt; without one load the model, or with `keep_alive` 0 unload it.",
        asks=(ollama.GenerateRequest, ollama.GENERATE),
        required=("model",),
        answers={NDJSON: wire.GenerateReply, JSON: wire.GenerateReply},
        fails=_CHAT,
    ),
    ("POST", "/api/embed"): _ollama(
        "Vectors of texts, of length 1.",
        asks=(embed.EmbedRequest, embed.EMBED),
        required=("model",),
        answers={JSON: embed.EmbedReply},
        fails=_CHAT,
    ),
    ("POST", "/api/embeddings"): _ollama(
        "The vector of one text: the older route.",
        asks=(embed.EmbeddingRequest, embed.EMBEDDING),
        required=("model",),
        answers={JSON: reply.Vector},
        fails=_CHAT,
    ),
    ("POST", "/api/tokenize"): _ollama(
        "A text as the model's tokens.",
        asks=(tokens.TokenizeRequest, tokens.TOKENIZE),
        required=("model",),
        answers={JSON: tokens.TokenizeReply},
        fails=_CHAT,
    ),
    ("POST", "/api/detokenize"): _ollama(
        "Tokens as a text.",
        asks=(tokens.DetokenizeRequest, tokens.DETOKENIZE),
        required=("model", "tokens"),
        answers={JSON: tokens.DetokenizeReply},
        fails=_CHAT,
    ),
    ("GET", "/api/tags"): _ollama("The models that are here.", answers=_TAGS, fails=()),
    ("HEAD", "/api/tags"): _ollama("The same without the body.", fails=()),
    ("GET", "/api/ps"): _ollama("The models that are loaded.", answers={JSON: wire.PsReply}, fails=()),
    ("POST", "/api/show"): _ollama(
        "One model.", asks=(ollama.ShowRequest, ollama.SHOW), required=("model",), answers={JSON: wire.ShowReply}
    ),
    ("POST", "/api/copy"): _ollama(
        "A second name for a model.",
        asks=(store.CopyRequest, store.COPY),
        required=("source", "destination"),
        fails=(400, 404, 409, 500),
    ),
    ("DELETE", "/api/delete"): _ollama(
        "Remove a model.", asks=(store.NamedRequest, store.DELETE), required=("model",), fails=(400, 404, 409, 500)
    ),
    ("POST", "/api/create"): _ollama(
        "Make a model of another one or of uploaded files.",
        asks=(store.CreateRequest, store.CREATE),
        required=("model",),
        answers=_STEPS,
        fails=(400, 404, 409, 500, 507),
    ),
    ("POST", "/api/pull"): _ollama(
        "Fetch a model from a hub.",
        asks=(store.NamedRequest, store.PULL),
        required=("model",),
        answers=_STEPS,
        fails=(400, 409, 500, 507),
    ),
    ("POST", "/api/push"): _ollama(
        "Refused: models are not sent anywhere.",
        asks=(store.NamedRequest, store.PUSH),
        required=("model",),
        answers={NDJSON: reply.Step},
        fails=(400,),
    ),
    ("HEAD", "/api/blobs/{digest}"): _ollama("Whether a file was uploaded.", fails=(400, 404)),
    ("POST", "/api/blobs/{digest}"): _ollama(
        "Upload a file; its digest is `sha256:` and 64 hexadecimal digits.", uploads=True, status=201, fails=(400, 507)
    ),
    ("POST", "/api/me"): _ollama("Refused: there is no account.", status=401, fails=()),
    ("POST", "/api/signout"): _ollama("Refused: there is no account.", status=401, fails=()),
    ("DELETE", "/api/user/keys/{key}"): _ollama("Refused: there is no account.", status=401, fails=()),
    ("GET", "/api/status"): _ollama("That there is no cloud.", answers={JSON: reply.CloudStatus}, fails=()),
    ("POST", "/api/experimental/web_search"): _ollama("Refused: there is no cloud.", status=403, fails=()),
    ("POST", "/api/experimental/web_fetch"): _ollama("Refused: there is no cloud.", status=403, fails=()),
    ("GET", "/api/experimental/model-recommendations"): _ollama(
        "An empty list.", answers={JSON: reply.Recommendations}, fails=()
    ),
    ("POST", "/v1/chat/completions"): _openai(
        "Answer a chat.",
        asks=(openai.ChatRequest, openai.CHAT),
        required=("model", "messages"),
        answers={JSON: reply.ChatCompletion, EVENTS: reply.ChatCompletionChunk},
        fails=_CHAT,
    ),
    ("POST", "/v1/completions"): _openai(
        "Go on from a prompt; without one load the model.",
        asks=(openai.CompletionRequest, openai.COMPLETION),
        required=("model",),
        answers={JSON: reply.Completion, EVENTS: reply.Completion},
        fails=_CHAT,
    ),
    ("POST", "/v1/embeddings"): _openai(
        "Vectors of texts, of length 1.",
        asks=(openai.EmbeddingRequest, openai.EMBEDDING),
        required=("model", "input"),
        answers={JSON: reply.EmbeddingList},
        fails=_CHAT,
    ),
    ("POST", "/v1/rerank"): _openai(
        "Documents in the order of their relevance to a query.",
        asks=(rerank.RerankRequest, rerank.RERANK),
        required=("model", "query", "documents"),
        answers={JSON: reply.RankedList},
        fails=_CHAT,
    ),
    ("GET", "/v1/models"): _openai("The models that are here.", answers={JSON: reply.ModelList}, fails=()),
    ("GET", "/v1/models/{model}"): _openai("One model.", answers={JSON: reply.ModelItem}),
    ("POST", "/v1/responses"): _openai(
        "Answer a chat; without `input` load the model.",
        asks=(responses_requests.ResponsesRequest, responses_requests.RESPONSES),
        required=("model",),
        answers={JSON: reply.ResponseObject, EVENTS: reply.ResponseEvent},
        fails=_CHAT,
    ),
    ("POST", "/v1/messages"): _anthropic(
        "Answer a chat.",
        asks=_MESSAGES,
        required=("model", "messages", "max_tokens"),
        answers={JSON: reply.AnthropicMessage, EVENTS: reply.AnthropicEvent},
        fails=_CHAT,
    ),
    ("POST", "/v1/messages/count_tokens"): _anthropic(
        "How many tokens a chat takes.",
        asks=_MESSAGES,
        required=("model", "messages"),
        answers={JSON: reply.TokenCount},
        fails=_CHAT,
    ),
}
