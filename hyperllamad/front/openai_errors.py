"""Errors in OpenAI's shape: `{"error":{"message","type","param","code"}}`.  Knows no route."""

from __future__ import annotations

import logging

from quart import Blueprint, Response
from werkzeug.exceptions import HTTPException

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.front import engine_words, gojson, replies
from hyperllamad.front.compat_body import DoorError
from hyperllamad.front.request_scope import record

log = logging.getLogger(__name__)

_TYPES = {400: b"invalid_request_error", 404: b"not_found_error"}  # those Ollama has
# OpenAI's own words for what Ollama never says.
_DOOR = {401: (b"invalid_request_error", b'"invalid_api_key"'), 429: (b"rate_limit_error", b'"rate_limit_exceeded"')}


def document(text: str, status: int) -> bytes:
    """The JSON of an error, without a newline."""
    kind, code = _DOOR.get(status, (_TYPES.get(status, b"api_error"), b"null"))
    return b'{"error":{"message":%s,"type":"%s","param":null,"code":%s}}' % (gojson.string(text), kind, code)


def install(routes: Blueprint) -> None:
    """Every failure of these routes is answered in this shape."""
    routes.register_error_handler(HyperLlamaError, _failure)
    routes.register_error_handler(HTTPException, _http_error)
    routes.register_error_handler(Exception, _our_fault)


async def _failure(found: HyperLlamaError) -> Response:
    text = record().error = engine_words.text_of(found)
    if isinstance(found, DoorError):
        return replies.json(document(text, found.status), found.status)
    return replies.json(document(text, found.status) + b"\n", found.status, replies.BARE_JSON)


async def _http_error(found: HTTPException) -> Response:
    status = found.code or 500
    return replies.json(document((found.description or found.name).lower(), status), status)


async def _our_fault(fault: Exception) -> Response:
    log.error("a request failed", exc_info=fault)
    record().error = replies.OUR_FAULT
    return replies.json(document(replies.OUR_FAULT, 500), 500)
