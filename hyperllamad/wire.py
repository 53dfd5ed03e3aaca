"""What an answer's bytes take to a client's socket: past the web server's layers, and held back until it is their time.

Knows a connection's writer and the framing of a chunked response.  Must not know the server, the app, or what is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Wire:
    """Writes body chunks of an HTTP/1.1 response past Hypercorn's layers, which cost more than the rest of a token.

    Only sound between the head of a chunked response and its end, which are sent the ordinary way: h11's chunked
    framing keeps no state between chunks, so it cannot tell.
    """

    __slots__ = ("_again", "_held", "_holding", "_writer")

    def __init__(self, writer: asyncio.StreamWriter, again: Callable[[], None]) -> None:
        """`again` has the server forget the head that it made last."""
        self._writer = writer
        self._again: Callable[[], None] | None = again
        self._holding = False
        self._held = b""

    @property
    def holds(self) -> bool:
        """A head is made that nobody has seen."""
        return bool(self._held)

    async def hold(self, sending: Awaitable[None]) -> None:
        """Have `sending`, which sends a head, write nothing: the head leaves with whatever is written next."""
        self._holding = True
        try:
            await sending
        finally:
            self._holding = False

    def take_back(self) -> None:
        """Another head takes the place of the held one.

        Raises ConnectionError when the peer is gone, and RuntimeError when the head may have been read.
        """
        if self._again is None:
            raise ConnectionResetError
        if not self._held:
            raise RuntimeError("the head of this response is not held: it may have been read already")
        self._held = b""
        self._again()

    def passing(self, data: bytes) -> bytes:
        """What is to be written when Hypercorn writes `data`: all that is due, or nothing yet."""
        if self._holding:
            self._held += data
            return b""
        held, self._held = self._held, b""
        return held + data if held else data

    def let_go(self) -> None:
        """The connection is over."""
        self._held, self._again = b"", None

    async def write(self, data: bytes) -> None:
        """Send `data` as one chunk; waits while the peer is slow, raises OSError when it is gone."""
        writer = self._writer
        size = b"%x\r\n" % len(data)
        if self._held:
            size, self._held = self._held + size, b""
        # Not writelines(): asyncio's own, in Python 3.12 and 3.13, holds nobody back however much lies there.
        writer.write(b"".join((size, data, b"\r\n")))
        try:
            await writer.drain()
        except TimeoutError as failure:  # ETIMEDOUT; nobody above shall take it for a timeout of his own
            raise ConnectionAbortedError(failure.errno, failure.strerror) from failure

    @property
    def pending(self) -> int:
        """Bytes that were written and that the kernel has not taken: 0 for a peer that keeps up."""
        return self._writer.transport.get_write_buffer_size()

    async def drained(self) -> None:
        """Until a slow peer has taken most of what was written; raises OSError when it is gone."""
        await self._writer.drain()
