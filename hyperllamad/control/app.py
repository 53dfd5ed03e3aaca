"""The admin door: one route, `POST /v1/<command>`; who may pass is decided here, what happens then in handlers.py.

Owns the order of the checks (shape of the request, command, role, body) and how each failure becomes a reply.  It must
not know what any command does.
"""

from __future__ import annotations

import asyncio
import logging
import re
from functools import partial
from typing import Any

import msgspec
from quart import Quart, Response, request
from werkzeug.exceptions import HTTPException, RequestTimeout

from hyperllamactl import __version__
from hyperllamactl.protocol.base import Command, Failed, Reply, Role
from hyperllamactl.protocol.table import COMMANDS
from hyperllamad.control import answer
from hyperllamad.control.errors import UnknownCommandError
from hyperllamad.control.handlers import AT_ONCE, STREAMS
from hyperllamad.control.roles import Roles
from hyperllamad.control.rooms import Rooms
from hyperllamad.core.errors import BadRequestError, HyperLlamaError, NotPermittedError
from hyperllamad.listen import Peer
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.control")

HOST = "hyperllamad"  # what clients call us; a browser led here by a name of its own would say that one
NDJSON = "application/x-ndjson"
BODY_PATIENCE = 30.0  # seconds for the body of a command to arrive
LOGGED = 200  # characters of a command's field in the log
MAX_BODY = 1_000_000  # bytes; commands are a few words, but a Modelfile may hold a template and a licence
_FIELDS = "docs/control.md lists the fields of every command"
_ROUTE = "the only route is POST /v1/<command>"
_HINTS = {
    404: _ROUTE,
    405: _ROUTE,
    408: f"a command must be here whole within {BODY_PATIENCE:.0f} seconds",
    413: f"a command takes at most {MAX_BODY} bytes",
}


def create_app(rooms: Rooms) -> Quart:
    """The ASGI application of the admin socket; `listen.serve` gives it the peer of each request."""
    app = Quart(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    # Quart's own limit is asyncio.wait_for(), which on Python 3.11 can forget a cancellation.
    app.config["BODY_TIMEOUT"] = None
    roles = Roles(rooms.config.admin.group)

    @app.post("/v1/<name>")
    async def run(name: str) -> Response:
        # Read before anything is refused: a connection closed on a client that still sends loses it the answer.
        body = await _received()
        peer = _peer()
        kind = _admitted(name, peer, roles)
        command = _decoded(name, kind, body)
        _record(peer, name, command)
        if kind.streams:
            return _streamed(rooms, name, command)
        reply = AT_ONCE[kind](rooms, command)
        return _whole(reply if isinstance(reply, Reply) else await reply, 200)

    @app.errorhandler(Exception)
    async def refuse(failure: Exception) -> Response:
        return _refusal(failure)

    @app.after_request
    async def sign(response: Response) -> Response:
        response.headers["Server"] = f"hyperllamad/{__version__}"
        return response

    return app


async def _received() -> str | bytes:
    """The body; raises RequestTimeout."""
    try:
        async with asyncio.timeout(BODY_PATIENCE):
            return await request.get_data()
    except TimeoutError:
        raise RequestTimeout from None


def _peer() -> Peer | None:
    """Who sent this request; None where the server does not say."""
    peer: Peer | None = request.scope.get("state", {}).get("peer")
    return peer


def _admitted(name: str, peer: Peer | None, roles: Roles) -> type[Command]:
    """The command of that name, when this request may ask for it; raises HyperLlamaError."""
    # A web page can make a browser on this machine send requests, but not without these two telling on it.
    if "Origin" in request.headers or request.headers.get("Host") != HOST:
        sentence = f"only requests for the host '{HOST}' and without an Origin are answered here"
        raise NotPermittedError(sentence, hint=f"ask for http://{HOST}/v1/{name}, and not from a web page")
    if name not in COMMANDS:
        raise UnknownCommandError(name, COMMANDS)
    roles.check(peer, name, COMMANDS[name])
    return COMMANDS[name]


def _decoded(name: str, kind: type[Command], body: str | bytes) -> Command:
    """The command in `body`; an empty one is a command without fields.  Raises BadRequestError naming the field."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as failure:
        raise BadRequestError(f"{name}: {_explain(str(failure))}", hint=_FIELDS) from failure
    except msgspec.DecodeError as failure:
        raise BadRequestError(f"{name}: the body is not JSON: {failure}", hint=_FIELDS) from failure


def _explain(text: str) -> str:
    """msgspec's sentence, the field first: "field `model`: expected `str`, got `int`"."""
    if missing := re.fullmatch(r"Object missing required field `(.+)`", text):
        return f"the field `{missing[1]}` is missing"
    what, _, where = text.partition(" - at `$.")
    what = what[:1].lower() + what[1:]
    return f"the field `{where.rstrip('`')}`: {what}" if where else what


def _record(peer: Peer | None, name: str, command: Command) -> None:
    """Who asked for what: changes are for the log always, questions only when debugging."""
    level = logging.INFO if command.role is Role.ADMIN else logging.DEBUG
    told = {key: _shortened(value) for key, value in msgspec.to_builtins(command).items()}
    log.log(level, "asked to %s", name, extra=fields(**told, **_who(peer)))


def _shortened(value: Any) -> Any:
    """A template or a licence is not for the log."""
    return value if len(text := str(value)) <= LOGGED else f"{text[:LOGGED]}..."


def _who(peer: Peer | None) -> dict[str, int]:
    return {"uid": peer.uid, "pid": peer.pid} if peer else {}


def _streamed(rooms: Rooms, name: str, command: Command) -> Response:
    handler = partial(STREAMS[type(command)], rooms, command)
    response = Response(answer.Answer(name, handler), content_type=NDJSON)
    response.timeout = None  # loading takes minutes, watching for ever
    return response


def _whole(reply: Reply, status: int) -> Response:
    return Response(answer.line(reply), status=status, content_type=NDJSON)


def _refusal(failure: Exception) -> Response:
    """A failure before anything was answered, in the same form as one on the way."""
    if isinstance(failure, HyperLlamaError):
        if isinstance(failure, NotPermittedError):
            log.info("refused %s", request.path, extra=fields(**_who(_peer())))
        return _whole(answer.failed(failure), failure.status)
    if isinstance(failure, HTTPException) and failure.code is not None:
        message = f"{request.method} {request.path}: {failure.name}"
        reply = Failed(code=BadRequestError.code, message=message, hint=_HINTS.get(failure.code, ""))
        return _whole(reply, failure.code)
    return _whole(answer.unexpected(failure, request.path), HyperLlamaError.status)
