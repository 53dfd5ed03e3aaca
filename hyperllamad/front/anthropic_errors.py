"""Errors in Anthropic's shape: `{"type":"error","error":{"type","message"},"request_id"}`.  Knows no route."""

from __future__ import annotations

import logging
import secrets

from quart import Blueprint, Response
from werkzeug.exceptions import HTTPException

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.front import engine_words, gojson, replies
from hyperllamad.front.compat_body import DoorError
from hyperllamad.front.request_scope import record

log = logging.getLogger(__name__)

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def request_id() -> str:
    return "req_" + secrets.token_hex(12)


def document(text: str, status: int, request: str) -> bytes:
    """The JSON of an error, without a newline."""
    error = {"type": _TYPES.get(status, "api_error"), "message": text}
    return gojson.encode({"type": "error", "error": error, "request_id": request})


def install(routes: Blueprint) -> None:
    """Every failure of these routes is answered in this shape."""
    routes.register_error_handler(HyperLlamaError, _failure)
    routes.register_error_handler(HTTPException, _http_error)
    routes.register_error_handler(Exception, _our_fault)


async def _failure(found: HyperLlamaError) -> Response:
    text = record().error = engine_words.text_of(found)
    return _reply(text, found.status, at_the_door=isinstance(found, DoorError))


async def _http_error(found: HTTPException) -> Response:
    return _reply((found.description or found.name).lower(), found.code or 500)


async def _our_fault(fault: Exception) -> Response:
    log.error("a request failed", exc_info=fault)
    record().error = replies.OUR_FAULT
    return _reply(replies.OUR_FAULT, 500)


def _reply(text: str, status: int, *, at_the_door: bool = False) -> Response:
    """Ollama answers in two ways, told apart by who found the fault."""
    request = request_id()
    data = document(text, status, request)
    response = replies.json(data, status) if at_the_door else replies.json(data + b"\n", status, replies.BARE_JSON)
    response.headers["request-id"] = request
    return response
