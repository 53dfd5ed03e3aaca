"""The head of a streamed answer, made while its engine thinks: its first token does not wait for that.

What Quart, Hypercorn and h11 do for a head takes longer than everything else between an engine's first chunk and its
client.  So the head is sent as soon as the engine was asked, and the server keeps it until something follows.  It is
taken back when another one is sent after all: that of an error, or one that has more to say.

Must not know a dialect, or an engine.  The server's part of it is wire.Wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, cast

from hypercorn.typing import ASGISendCallable
from quart import Request, Response, request
from quart.utils import encode_headers

from hyperllamad.front import request_scope, upload
from hyperllamad.front.asgi import Message, Send, hanging_up
from hyperllamad.front.lean import LeanQuart
from hyperllamad.front.ports import Wire

_HEAD = "hyperllama.head"
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Head:
    """That of one response, and the way that Quart sends the whole of it."""

    def __init__(self, app: LeanQuart, send: Send, wire: Wire) -> None:
        self._app, self._send, self._wire = app, send, wire
        self._made: Any = None  # its headers, once it has been
        self._said: Mapping[str, str] = _NO_HEADERS  # what the request's record had for it then

    @property
    def made(self) -> bool:
        """It is there, be it that another one will be sent."""
        return self._made is not None

    @property
    def ready(self) -> bool:
        """It is there, and has come to say nothing else."""
        return self._wire.holds and self._said == request_scope.record().headers

    async def make(self, content_type: str, headers: Mapping[str, str]) -> None:
        """Send that of a stream, which the server keeps for now."""
        self._said = dict(request_scope.record().headers)
        response = Response(_Nothing(), content_type=content_type)
        response.headers.update(headers)
        done = await self._app.finished(response)
        self._made = encode_headers(done.headers)
        start = {"type": "http.response.start", "status": 200, "headers": self._made}
        await self._wire.hold(self._send(start))

    async def send(self, message: Message) -> None:
        """What Quart sends; the head that is there already is not sent again, and any other takes its place."""
        if self._made is not None and message["type"] == "http.response.start":
            made, self._made = self._made, None
            if message["status"] == 200 and message["headers"] == made:
                return
            with hanging_up():
                self._wire.take_back()
        await self._send(message)


class Connection(upload.Connection):
    """Quart's own, with heads that may be made early: put in place with `Quart.asgi_http_class`."""

    async def handle_request(self, request: Request, send: ASGISendCallable) -> None:
        """As Quart does it."""
        scope = cast("dict[str, Any]", self.scope)
        if (wire := scope.get("state", {}).get("wire")) is not None:
            head = scope[_HEAD] = Head(cast("LeanQuart", self.app), cast("Send", send), wire)
            send = cast("ASGISendCallable", head.send)
        try:
            await super().handle_request(request, send)
        finally:
            scope.pop(_HEAD, None)  # what it sends by has the scope: they would stay until Python looks for circles


def expect(content_type: str, headers: Mapping[str, str] = _NO_HEADERS) -> None:
    """The current request will be answered with such a stream, unless something comes between.

    Said before an engine is asked; what the request's record says in `headers` by then is in the head, too.
    """
    head = current()
    if head is not None and not head.made:  # an engine that is asked in place of a dead one finds it made
        request_scope.record().meanwhile = partial(head.make, content_type, headers)


def current() -> Head | None:
    """The current request's; None where the server keeps none."""
    return cast("dict[str, Any]", request.scope).get(_HEAD)


class _Nothing:
    """The body of a response whose head is all that is wanted: its length is not known."""

    def __aiter__(self) -> _Nothing:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration
