"""The body of a streaming response, written the shortest way the server allows, and what is told when it breaks off.

Knows neither engines nor dialects.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio
from quart import request

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.front import heads, replies, request_scope
from hyperllamad.front.asgi import hanging_up
from hyperllamad.front.ports import Wire
from hyperllamad.front.request_scope import Record
from hyperllamad.telemetry import fields

log = logging.getLogger(__name__)

_LARGE = 1 << 15  # bytes; half of what is written before a write waits for the client


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


class UnreadError(HyperLlamaError):
    """The client took nothing of its answer while others waited for the engine."""

    code = "unread"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the answer was ended: nothing of it was read for {seconds:.0f} s while others waited for the model",
            hint="`server.unread_timeout_wanted` is how long that may take",
        )


class StreamBody:
    """An async iterable of blocks for Quart: the first one that is there already, then what `more` gives until b"".

    The first block is yielded: it takes the head of the response out with it.  After that, where the server offers a
    `wire` (HTTP/1.1 through our own listener), blocks go straight to it and nothing more is yielded, because the way
    through Quart, Hypercorn and h11 costs more CPU than everything else that happens to a token; where the head is made
    already, begin() gives it the first one as well.  The end of the body goes the ordinary way again.  Either way the
    next block is only asked for when this one is written, so that a slow client holds back its own engine stream and
    nobody else's.

    An iterator and not a generator: there is nothing to close, whatever moment it is left at.
    """

    def __init__(
        self,
        first: bytes,
        more: Callable[[], Awaitable[bytes]],
        failed: Callable[[Exception], bytes] | None = None,
    ) -> None:
        """`failed` is the last block of an answer that ends so; without it there is no engine to wait for."""
        self._first = first
        self._more = more
        self._failed = failed
        self._told, self._held = request_scope.record(), request_scope.held()
        self._wire: Wire | None = request.scope["state"].get("wire")

    async def begin(self) -> None:
        """Write the first block at once, if its head is made and waits for it."""
        head = heads.current()
        if self._wire is not None and self._first and head is not None and head.ready:
            first, self._first = self._first, b""
            with hanging_up():
                await self._wire.write(first)

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
        with hanging_up():
            while block := await more():
                if not wire.pending and len(block) <= _LARGE:
                    await write(block)
                elif not await self._write_slowly(wire, block):
                    return

    async def _write_slowly(self, wire: Wire, block: bytes) -> bool:
        """To a client that does not keep up; False when the answer was ended, because the engine is wanted."""
        told, since = self._told, time.monotonic()
        if self._failed is None or not told.unread or told.wanted is None:
            await wire.write(block)
            return True
        look = min(1.0, told.unread / 4)
        with anyio.move_on_after(look) as late:
            await wire.write(block)
        left = wire.pending
        while late.cancelled_caught:
            now = time.monotonic()
            if wire.pending < left:
                left, since = wire.pending, now
            elif now - since >= told.unread and told.wanted():
                await self._let_go(wire, UnreadError(now - since))
                return False
            with anyio.move_on_after(look) as late:
                await wire.drained()
        return True

    async def _let_go(self, wire: Wire, failure: UnreadError) -> None:
        """Of the engine: the client still gets what was written, and why there is no more, should it read again."""
        assert self._failed is not None  # noqa: S101 - or nobody had looked
        await self._held.pop_all().aclose()
        await wire.write(self._failed(failure))
