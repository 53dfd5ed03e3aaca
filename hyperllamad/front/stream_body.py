"""The body of a streaming response, written the shortest way the server allows, and what is told when it breaks off.

Knows neither engines nor dialects.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from quart import request

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.front import replies
from hyperllamad.front.ports import Wire
from hyperllamad.front.request_scope import Record
from hyperllamad.telemetry import fields

log = logging.getLogger(__name__)


def broken_off(failure: Exception, told: Record) -> tuple[str, int]:
    """(text, status) for a client whose stream has begun; the request's line in the log says it, too.

    What is no error of the tree is a fault of ours: the log has its trace, the client a sentence.
    """
    if isinstance(failure, HyperLlamaError):
        text, status = replies.text_of(failure), failure.status
    else:
        log.error("a stream failed", exc_info=failure, extra=fields(model=told.model))
        text, status = replies.OUR_FAULT, 500
    told.error = text
    return text, status


class StreamBody:
    """An async iterable of blocks for Quart: the first one that is there already, then what `more` gives until b"".

    The first block is yielded: it takes the head of the response out with it.  After that, where the server offers a
    `wire` (HTTP/1.1 through our own listener), blocks go straight to it and nothing more is yielded, because the way
    through Quart, Hypercorn and h11 costs more CPU than everything else that happens to a token.  The end of the body
    goes the ordinary way again.  Either way the next block is only asked for when this one is written, so that a slow
    client holds back its own engine stream and nobody else's.

    An iterator and not a generator: there is nothing to close, whatever moment it is left at.
    """

    def __init__(self, first: bytes, more: Callable[[], Awaitable[bytes]]) -> None:
        self._first = first
        self._more = more
        self._wire: Wire | None = request.scope["state"].get("wire")

    def __aiter__(self) -> StreamBody:
        return self

    async def __anext__(self) -> bytes:
        if block := self._first:
            self._first = b""
            return block
        if self._wire is not None:
            await self._write_through(self._wire)
        elif block := await self._more():
            return block
        raise StopAsyncIteration

    async def _write_through(self, wire: Wire) -> None:
        more, write = self._more, wire.write
        try:
            while block := await more():
                await write(block)
        except OSError as gone:
            # What the server is about to tell Quart.  Ending the body instead would make Hypercorn believe that the
            # connection can be used again, and keep it for as long as one may idle.
            raise asyncio.CancelledError from gone
