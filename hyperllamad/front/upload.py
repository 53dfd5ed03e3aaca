"""Bodies too large for memory: they come piece by piece, and no faster than their reader takes them.

Quart collects a body as fast as the client sends it; here the connection waits instead, and with it the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

from hypercorn.typing import ASGIReceiveCallable, HTTPScope
from quart import Quart, Request, request
from quart.asgi import ASGIHTTPConnection
from werkzeug.exceptions import RequestTimeout

PATIENCE = 300  # seconds for each piece to arrive
PREFIX = "/api/blobs/"  # the routes that are served so, by POST

_UPLOAD = "hyperllama.upload"


def is_upload(scope: Mapping[str, Any]) -> bool:
    """Whether a request's body is one of these."""
    return bool(scope["method"] == "POST" and scope["path"].startswith(PREFIX))


class Connection(ASGIHTTPConnection):
    """Quart's own, except for uploads: put in place with `Quart.asgi_http_class`."""

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        self._pieces: asyncio.Queue[bytes] | None = None
        if is_upload(scope):
            self._pieces = asyncio.Queue(1)
            cast("dict[str, Any]", scope)[_UPLOAD] = self._pieces

    async def handle_messages(
        self, request: Request, receive: ASGIReceiveCallable, *handler: asyncio.Task[None]
    ) -> None:
        """Returns when the client has left, not at the end of the body.

        Quart before 0.23 ends the request when this returns; since then it gives us the handler's task to cancel.
        """
        if self._pieces is None:
            return await super().handle_messages(request, receive, *handler)
        while (message := await receive())["type"] == "http.request":
            if piece := message["body"]:
                await _give(self._pieces, piece, handler)
            if not message["more_body"]:
                await _give(self._pieces, b"", handler)
        for task in handler:
            task.cancel()
        return None


async def _give(pieces: asyncio.Queue[bytes], piece: bytes, handler: Sequence[asyncio.Task[None]]) -> None:
    """Wait until there is room for `piece`, or until nobody will ever take it because the handler has ended."""
    giving = asyncio.ensure_future(pieces.put(piece))
    try:
        await asyncio.wait([giving, *handler], return_when=asyncio.FIRST_COMPLETED)
    finally:
        giving.cancel()


async def pieces() -> AsyncIterator[bytes]:
    """The body of the current request, which must be an upload; raises RequestTimeout when nothing comes for long."""
    queue = cast("asyncio.Queue[bytes]", cast("dict[str, Any]", request.scope)[_UPLOAD])
    while True:
        try:
            async with asyncio.timeout(PATIENCE):
                piece = await queue.get()
        except TimeoutError:
            raise RequestTimeout from None
        if not piece:
            return
        yield piece
