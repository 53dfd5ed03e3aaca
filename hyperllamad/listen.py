"""Serve an ASGI app on listening sockets: every connection a task of ours, a bounded end, and who is at the other end.

Hypercorn speaks HTTP; this file owns the sockets, the connection tasks and their end (hypercorn.asyncio.serve() cannot
be bounded on Python 3.12 and later: pgjones/hypercorn#308).  It must not know what the app does.  Some of Hypercorn's
inner names are used: TCPServer with five of its methods and its idle_task, WorkerContext, wrap_app, and what lies below
a TCPServer where a head is taken back; the contract is tests/test_listen.py, tests/test_last_call.py and
tests/test_held_heads.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pwd
import select
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc
import h11
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.http_stream import ASGIHTTPState
from hypercorn.utils import wrap_app

from hyperllamad.connections import UNBOUNDED, Bounds, Connections
from hyperllamad.pauses import Pause, Pauses
from hyperllamad.wire import Wire

log = logging.getLogger(__name__)

CHUNK = 1 << 16  # bytes read from a client at once
LAST_CALL = 0.5  # seconds a client has for its next request once we are stopping: it may not know yet
TURNS = 3  # of the event loop, at most, from accept() to our callback
LONGEST_HEAD = 1 << 16  # bytes of a request's headers; h11 answers 431 to more
BACKLOG = 1024  # connections the kernel holds for us while the loop is busy
SO_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)  # Linux 4.13; not in Python's socket module
LARGEST_OPTION = 1024  # bytes; Python's socket module asks the kernel for no more


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a Unix socket, as the kernel saw it at connect()."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()

    @classmethod
    def of(cls, sock: socket.socket) -> Peer | None:
        """None for anything but a Unix socket."""
        if sock.family != socket.AF_UNIX:
            return None
        pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return cls(pid, uid, gid, frozenset(_groups(sock, uid, gid)) | {gid})


def _groups(sock: socket.socket, uid: int, gid: int) -> Sequence[int]:
    """The peer's supplementary groups; of one who has more than 256, those that the group database knows."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, LARGEST_OPTION)
    except OSError:
        try:
            return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
        except (KeyError, OSError):
            return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


class _Server(TCPServer):
    """Hypercorn's connection, ended when its client has gone, or sends a request's headers too slowly.

    Hypercorn would keep one that is closed between two requests, its task and its descriptor, until the idle timeout.
    """

    head_timeout = 10.0  # seconds
    wire: Wire
    _between = True  # two requests, or before the first
    _over = False  # nothing more will be read
    _late: asyncio.TimerHandle | None = None  # runs from the first byte of a request until its headers are complete

    async def _read_data(self) -> None:
        """As Hypercorn does it, without a timer for every read."""
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(CHUNK)
            except OSError:
                break
            if data and self._between and self._late is None:
                self._late = self.loop.call_later(self.head_timeout, self.writer.transport.abort)
            await self.protocol.handle(RawData(data))
        self._over = True
        await self.protocol.handle(Closed())
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            self._between = event.idle
            self._head_is_here()
            if event.idle and (self._over or self.reader.at_eof()):
                return  # nobody asks again
        elif isinstance(event, Closed):
            self._head_is_here()
        elif isinstance(event, RawData):
            if not (due := self.wire.passing(event.data)):
                return
            event = RawData(due)
        try:
            await super().protocol_send(event)
        except TimeoutError:  # the kernel gave up on a client that took nothing; Hypercorn expects a ConnectionError
            await self.protocol.handle(Closed())

    async def _idle_timeout(self) -> None:
        """Hang up on a client that has asked nothing for a while, but never on one that has just begun to."""
        if not await self._asked():
            await asyncio.shield(self._initiate_server_close())

    async def _asked(self) -> bool:
        """Whether something of a next request is here, be it still in the kernel, or the connection ends by itself."""
        await asyncio.sleep(0)  # what the transport has read reaches _read_data()
        descriptor = self.writer.get_extra_info("socket").fileno()
        if self._late is not None or descriptor < 0:  # the client has just cut it off
            return True
        unread = select.poll()
        unread.register(descriptor, select.POLLIN)
        return bool(unread.poll(0))

    async def _close(self) -> None:
        self._head_is_here()
        with contextlib.suppress(OSError):  # the connection ended in a way Hypercorn does not know, as ETIMEDOUT
            await super()._close()

    def answer_again(self) -> None:
        """h11 and Hypercorn forget the head that they made, and are where they were when the request had come.

        h11 cannot go back, so a new one is told of a request that ends as the client's did, and what came behind it.
        Raises ConnectionError when the client has just gone.
        """
        inner: Any = self.protocol.protocol
        spent, stream = inner.connection, inner.stream
        if stream is None:
            raise ConnectionResetError
        came, ended = spent.trailing_data
        fresh = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        fresh.receive_data(_ASKED % (_CLOSE if spent.their_state is h11.MUST_CLOSE else b"") + came)
        while type(fresh.next_event()) is not h11.EndOfMessage:
            pass
        if ended:
            fresh.receive_data(b"")
        inner.connection, stream.state = fresh, ASGIHTTPState.REQUEST

    def let_go(self) -> None:
        """The connection is over: it, its protocol and its wire hold each other, and 7 KiB, no longer.

        Somebody who is still about to close it, because it was idle, finds a protocol that does nothing.
        """
        self.protocol = _ENDED
        self.wire.let_go()

    def _head_is_here(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


_ASKED = b"POST / HTTP/1.1\r\nHost: x\r\n%s\r\n"
_CLOSE = b"Connection: close\r\n"


class _Ended:
    """In place of the protocol of a connection that is over."""

    async def handle(self, _: Event) -> None:
        """Nobody is there any more."""


_ENDED: Any = _Ended()


def _with_wire(app: Any) -> Any:
    """Take the Wire away from requests for which it is not sound."""

    async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (scope["http_version"] != "1.1" or scope["method"] == "HEAD"):
            scope["state"].pop("wire", None)
        await app(scope, receive, send)

    return asgi


async def serve(
    app: Any,
    sockets: Sequence[socket.socket],
    *,
    stop: Callable[[], Awaitable[object]],
    grace: float,
    bounds: Bounds = UNBOUNDED,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on `sockets` until `stop()` returns, then give open requests `grace` seconds and hang up.

    A connection beyond `bounds` is answered with 503 and closed.  The listening sockets are closed as soon as `stop()`
    returns; a connection that is open then, with or without a request, may ask once more within LAST_CALL and is told
    with the answer that it ends.  `task_status` tells that all sockets are accepting.
    """
    config, context, wrapped = _hypercorn_config(bounds), WorkerContext(None), wrap_app(_with_wire(app), 0, "asgi")
    loop = asyncio.get_running_loop()
    connections, pauses = Connections(bounds), Pauses(loop, bounds.idle)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        state: dict[str, Any] = {"peer": Peer.of(sock)}
        if sock.family != socket.AF_UNIX:
            connections.tune(sock)
        server = _Server(wrapped, loop, config, context, state, reader, writer)
        server.wire = state["wire"] = Wire(writer, server.answer_again)
        server.head_timeout = bounds.head
        server.idle_task = Pause(pauses)  # type: ignore[assignment]  # Hypercorn asks it for restart() and stop() only
        try:
            await server
        finally:
            connections.remove(writer)
            server.let_go()

    async with anyio.create_task_group() as tasks:

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if why := connections.refusal(writer):
                _refuse(writer, why)
                return
            connections.add(writer)
            tasks.start_soon(connection, reader, writer)

        servers = [await _start(accepted, sock) for sock in sockets]
        task_status.started()
        try:
            await stop()
            for server in servers:
                server.close()
            for _ in range(TURNS):  # whoever was accepted before is told to `accepted`
                await asyncio.sleep(0)
            config.keep_alive_max_requests = 0  # from here on answers say that the connection ends with them
            pauses.hasten(LAST_CALL)
            with anyio.move_on_after(grace):
                await connections.wait_none_left()
        finally:
            for server in servers:
                server.close()
            connections.hang_up()


# Who made the socket's file removes it: systemd, or the daemon.  Python 3.13 and later would, unless told otherwise.
_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


async def _start(accepted: Callable[..., None], sock: socket.socket) -> asyncio.Server:
    if sock.family == socket.AF_UNIX:
        return await asyncio.start_unix_server(accepted, sock=sock, backlog=BACKLOG, **_KEEP_FILE)
    return await asyncio.start_server(accepted, sock=sock, backlog=BACKLOG)


def _refuse(writer: asyncio.StreamWriter, why: str) -> None:
    """Answer whatever is asked with 503: one who is only cut off does not know what to do better."""
    body = json.dumps({"error": why}).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    writer.write(f"{head}retry-after: 1\r\nconnection: close\r\n\r\n".encode() + body)
    writer.close()


def _hypercorn_config(bounds: Bounds) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = log
    config.include_server_header = False
    config.keep_alive_timeout = bounds.idle
    config.h11_max_incomplete_size = LONGEST_HEAD
    return config
