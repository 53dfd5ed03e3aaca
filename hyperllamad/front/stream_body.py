"""The body of a streaming response, written the shortest way the server allows.  Knows neither engines nor dialects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from quart import request

from hyperllamad.front.ports import Wire


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
