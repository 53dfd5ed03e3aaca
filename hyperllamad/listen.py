"""Serve an ASGI app on listening sockets: every connection a task of ours, a bounded end, and who is at the other end.

Hypercorn speaks HTTP; this file owns the sockets, the connection tasks and their end (hypercorn.asyncio.serve() cannot
be bounded on Python 3.12 and later: pgjones/hypercorn#308).  It must not know what the app does.  Some of Hypercorn's
inner names are used: TCPServer and three of its methods, WorkerContext, wrap_app; tests/test_listen.py is the contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import logging
import os
import pwd
import socket
import stat
import struct
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.utils import wrap_app

from hyperllamad.connections import UNBOUNDED, Bounds, Connections

log = logging.getLogger(__name__)

CHUNK = 1 << 16  # bytes read from a client at once
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


class Wire:
    """Writes body chunks of an HTTP/1.1 response past Hypercorn's layers, which cost more than the rest of a token.

    Only sound between the first body chunk of a chunked response (sent the ordinary way, so that the head is out) and
    its end (sent the ordinary way too): h11's chunked framing keeps no state between chunks, so it cannot tell.
    """

    __slots__ = ("_writer",)

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def write(self, data: bytes) -> None:
        """Send `data` as one chunk; waits while the peer is slow, raises OSError when it is gone."""
        writer = self._writer
        writer.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
        try:
            await writer.drain()
        except TimeoutError as failure:  # ETIMEDOUT; nobody above shall take it for a timeout of his own
            raise ConnectionAbortedError(failure.errno, failure.strerror) from failure


class _Server(TCPServer):
    """Hypercorn's connection, ended when its client has gone, or sends a request's headers too slowly.

    Hypercorn would keep one that is closed between two requests, its task and its descriptor, until the idle timeout.
    """

    head_timeout = 10.0  # seconds
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
        try:
            await super().protocol_send(event)
        except TimeoutError:  # the kernel gave up on a client that took nothing; Hypercorn expects a ConnectionError
            await self.protocol.handle(Closed())

    async def _close(self) -> None:
        self._head_is_here()
        with contextlib.suppress(OSError):  # the connection ended in a way Hypercorn does not know, as ETIMEDOUT
            await super()._close()

    def _head_is_here(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


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
    returns; `task_status` tells that all of them are accepting.
    """
    config, context, wrapped = _hypercorn_config(bounds), WorkerContext(None), wrap_app(_with_wire(app), 0, "asgi")
    loop = asyncio.get_running_loop()
    connections = Connections(bounds)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        state = {"peer": Peer.of(sock), "wire": Wire(writer)}
        if sock.family != socket.AF_UNIX:
            connections.tune(sock)
        with connections.held(writer):
            server = _Server(wrapped, loop, config, context, state, reader, writer)
            server.head_timeout = bounds.head
            await server

    async with anyio.create_task_group() as tasks:

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if why := connections.refusal(writer):
                _refuse(writer, why)
                return
            tasks.start_soon(connection, reader, writer)

        servers = [await _start(accepted, sock) for sock in sockets]
        task_status.started()
        try:
            await stop()
            for server in servers:
                server.close()
            await context.terminated.set()  # connections between two requests close themselves
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


# -- opening sockets ---------------------------------------------------------------------------------------------------


def addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """(family, address) of everything `host` stands for, as bind() takes it; raises OSError.

    An empty host or `*` means every interface, both families.
    """
    passive = None if host in {"", "*"} else host
    found = socket.getaddrinfo(passive, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def open_tcp(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for every address `host` stands for; raises OSError naming the address that failed."""
    opened: list[socket.socket] = []
    try:
        for family, address in addresses(host, port):
            sock = socket.socket(family, socket.SOCK_STREAM)
            opened.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(address)
            except OSError as failure:
                shown = f"[{address[0]}]" if family == socket.AF_INET6 else address[0]
                failure.filename = f"{shown}:{port}"
                raise
            sock.setblocking(False)  # noqa: FBT003  the socket module takes it no other way
    except OSError:
        for sock in opened:
            sock.close()
        raise
    return opened


def open_unix(path: Path, *, mode: int = 0o660, group: str = "") -> socket.socket:
    """A listening Unix socket at `path`; a stale file from an earlier life is replaced.

    `group` may go through the door too, when it exists and we may give it away.  Raises OSError (EADDRINUSE) when
    somebody answers there, and OSError for a path that is not a socket or is too long (107 bytes, man 7 unix).
    """
    if len(os.fsencode(path)) > 107:
        raise OSError(36, "path too long for a Unix socket (107 bytes at most)", str(path))
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        with contextlib.suppress(KeyError, PermissionError):
            if group:
                os.chown(path, -1, grp.getgrnam(group).gr_gid)
        sock.setblocking(False)  # noqa: FBT003  the socket module takes it no other way
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(17, "exists and is not a socket", str(path))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        else:
            raise OSError(98, "another hyperllamad answers there", str(path))
