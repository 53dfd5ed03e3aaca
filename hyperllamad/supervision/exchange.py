"""One POST to an engine, over a connection of its own to its Unix socket.

The request leaves before anything is waited for.  Of many that come at the same moment the first is so with the engine
while the last is still being read; a client that connects, waits and then sends would have the engine wait for all.
It is also the cheaper way: aiohttp's session does for each request what only a client of many hosts needs.

aiohttp's protocol does the reading, which is most of HTTP: it parses, and holds the engine back when nobody reads.
`ResponseHandler` is one of its inner names; tests/supervision/test_exchange.py is the contract.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

READ_BUFFER = 1 << 16  # bytes read ahead of a slow client; aiohttp pauses the engine at twice that
PATIENCE = 30.0  # seconds for an engine to accept a connection when its queue of them is full
PAUSE = 0.005  # seconds between two tries then

Meanwhile = Callable[[], Awaitable[None]]

_HEAD = (
    "POST {} HTTP/1.1\r\nHost: engine\r\nAccept-Encoding: identity\r\nContent-Type: application/json\r\n"
    "Content-Length: {}\r\n\r\n"
)


class Handler(ResponseHandler):
    """aiohttp's, which tells whoever waits for a head that it cannot read on, and lets who waits for a body wait on."""

    def hang_up(self) -> None:
        """What was not sent yet is of no use any more, so it is not waited for."""
        if self.transport is not None:
            self.transport.abort()
            self.close()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        body = self._payload
        super().set_exception(exc, *cause)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(_unreadable(exc) if isinstance(exc, HttpProcessingError) else exc)


def _unreadable(failure: HttpProcessingError) -> aiohttp.ClientError:
    return aiohttp.ClientPayloadError(f"what it answered is not HTTP: {failure.message}")


class Answer:
    """What the engine says: the status, and a body that is read while it comes."""

    __slots__ = ("_handler", "content", "status")

    def __init__(self, status: int, content: StreamReader, handler: Handler) -> None:
        self.status = status
        self.content = content
        self._handler = handler

    async def read(self) -> bytes:
        """All of the body that is still to come.  Raises aiohttp.ClientError when it breaks off."""
        return await self.content.read()

    def close(self) -> None:
        """Hang up, which makes an engine stop; again, or after the end, does nothing."""
        self._handler.hang_up()


async def post(
    path: str,
    target: str,
    payload: bytes,
    opened: Callable[[Handler], None],
    *,
    meanwhile: Meanwhile | None = None,
    spare: socket.socket | None = None,
) -> Answer:
    """The answer's head and the way to the rest; `path` is the socket's, `target` is what is asked of the engine.

    `opened` is told of the connection as soon as it can be cut off (its `transport`), and may raise to have it closed;
    then `meanwhile` is done, while the engine has the request already.  A `spare` connection is used, or closed.
    Raises OSError (nobody listens, TimeoutError: nobody accepts) and aiohttp.ClientError (no answer, or none of HTTP).
    """
    loop = asyncio.get_running_loop()
    sock, rest = await _asked(path, (_HEAD.format(target, len(payload)).encode(), payload), spare)
    handler = Handler(loop)
    handler.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=READ_BUFFER)
    transport = await _handed_over(loop, sock, handler)
    try:
        opened(handler)
        if rest:
            transport.write(rest)
        if meanwhile is not None:
            await meanwhile()
        message, content = await handler.read()
        while message.code < 200:  # told in between, as 103 is
            message, content = await handler.read()
    except HttpProcessingError as unreadable:
        raise _unreadable(unreadable) from unreadable
    except BaseException:
        handler.hang_up()
        raise
    content.on_eof(handler.hang_up)  # some engines keep a thread for each connection
    return Answer(message.code, content, handler)


async def _handed_over(loop: asyncio.AbstractEventLoop, sock: socket.socket, handler: Handler) -> asyncio.Transport:
    """The loop has the socket from here on, be it that we are cancelled.

    It is never interrupted in taking it: loops differ in who closes the descriptor then, and with uvloop 0.21
    it is closed twice, the second time perhaps as somebody else's.
    """

    def abandon(taken: asyncio.Task[tuple[asyncio.Transport, Handler]]) -> None:
        if not taken.cancelled() and taken.exception() is None:
            handler.hang_up()

    taking = asyncio.ensure_future(loop.create_unix_connection(lambda: handler, sock=sock))
    try:
        transport, _ = await asyncio.shield(taking)
    except asyncio.CancelledError:
        taking.add_done_callback(abandon)
        raise
    return transport


def ahead(path: str) -> socket.socket | None:
    """A connection for the next request, so that it finds one; None where it would have to be waited for."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        return None
    return sock


async def _asked(
    path: str, parts: tuple[bytes, bytes], spare: socket.socket | None
) -> tuple[socket.socket, memoryview]:
    """A connection that the request was written to, and what of it the kernel did not take."""
    if spare is not None:
        try:
            return spare, _send(spare, parts)
        except OSError:  # the engine has closed it meanwhile
            spare.close()
    sock = await _connected(path)
    try:
        return sock, _send(sock, parts)
    except BaseException:
        sock.close()
        raise


async def _connected(path: str) -> socket.socket:
    """At once, unless more wait to be accepted than the engine allows."""
    end = time.monotonic() + PATIENCE
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError(f"no connection was accepted for {PATIENCE:.0f} s") from None
                await asyncio.sleep(PAUSE)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


def _send(sock: socket.socket, parts: tuple[bytes, bytes]) -> memoryview:
    """What the kernel does not take at once."""
    try:
        sent = sock.sendmsg(parts)
    except BlockingIOError:
        sent = 0
    head, payload = parts
    if sent < len(head):
        return memoryview(head[sent:] + payload)
    return memoryview(payload)[sent - len(head) :]
