"""Whole HTTP replies: JSON as Ollama sends it, and every error as `{"error": text}` with its status."""

from __future__ import annotations

from quart import Response

from hyperllamad.core.errors import HyperLlamaError, InvalidNameError, ModelNotFoundError
from hyperllamad.front import gojson

JSON = "application/json; charset=utf-8"
# Ollama names no charset on OpenAI's and Anthropic's routes, and where a stream ended before it began.
BARE_JSON = "application/json"
NDJSON, EVENTS = "application/x-ndjson", "text/event-stream"  # streams
OUR_FAULT = "internal error: the log of hyperllamad has the details"


def json(body: bytes, status: int = 200, content_type: str = JSON) -> Response:
    """A JSON body, ready made; no newline is added."""
    return Response(body, status, content_type=content_type)


def error(text: str, status: int, content_type: str = JSON) -> Response:
    return json(b'{"error":' + gojson.string(text) + b"}", status, content_type)


def failure(found: HyperLlamaError, content_type: str = JSON) -> Response:
    """Any of our errors."""
    return error(text_of(found), found.status, content_type)


def text_of(found: HyperLlamaError) -> str:
    """The sentence and the hint; the bare sentence where it is Ollama's own and clients compare it."""
    return found.message if isinstance(found, (InvalidNameError, ModelNotFoundError)) else str(found)
