"""Clients that are many, slow, silent or gone: what they cost, and that others are served all the while."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from hyperllamad import connections, listen, sockets
from hyperllamad.connections import Bounds, Connections
from tests.supervision.processes import descriptors as open_files
from tests.supervision.processes import wait_for


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """`/` is answered at once; `/stream` goes on until the client has gone."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/stream":
        while (await receive())["type"] != "http.disconnect":
            await send({"type": "http.response.body", "body": b"x" * (32 << 20), "more_body": True})
    await send({"type": "http.response.body", "body": b"hello"})


class Door:
    """`app` behind listen.serve, and what it holds."""

    def __init__(self) -> None:
        self.address: tuple[str, int] = ("", 0)
        self.held: Connections = Connections()

    @property
    def open(self) -> int:
        return len(self.held._writers)

    async def connect(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        return sock

    async def ask(self, sock: socket.socket | None = None) -> bytes:
        """The whole answer to `/`, or what came until the server hung up."""
        client = sock or await self.connect()
        loop = asyncio.get_running_loop()
        got = b""
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            while not got.endswith(b"0\r\n\r\n") and (more := await loop.sock_recv(client, 65536)):
                got += more
        if sock is None:
            client.close()
        return got


@contextlib.asynccontextmanager
async def door(monkeypatch: pytest.MonkeyPatch, bounds: Bounds) -> AsyncIterator[Door]:
    made, stop = Door(), anyio.Event()

    class Seen(Connections):
        def __init__(self, bounds: Bounds) -> None:
            super().__init__(bounds)
            made.held = self

    monkeypatch.setattr(listen, "Connections", Seen)
    (sock,) = sockets.open_tcp("127.0.0.1", 0)
    made.address = sock.getsockname()

    async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        await listen.serve(app, [sock], stop=stop.wait, grace=0.1, bounds=bounds, task_status=task_status)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            await tasks.start(run)
            yield made
            stop.set()


async def gone(sock: socket.socket) -> bytes:
    """What still came before the server hung up."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while more := await asyncio.get_running_loop().sock_recv(sock, 65536):
            got += more
    return got


async def test_headers_that_never_end_are_cut_off_and_rests_between_requests_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    async with door(monkeypatch, Bounds(head=0.2, idle=30)) as front:
        resting = await front.connect()
        assert b"hello" in await front.ask(resting)
        slow = await front.connect()
        began = time.monotonic()

        async def dribble() -> None:
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(slow, b"GET / HTTP/1.1\r\n")
                while True:
                    await loop.sock_sendall(slow, b"a: b\r\n")
                    await anyio.sleep(0.01)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dribble)
            assert await gone(slow) == b""
            tasks.cancel_scope.cancel()
        assert time.monotonic() - began >= 0.2
        assert b"hello" in await front.ask(resting), "it rested for longer than headers may take"
        for sock in (slow, resting):
            sock.close()
        await wait_for(lambda: front.open == 0)


async def test_silence_is_cut_off_before_the_first_request_and_after_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with door(monkeypatch, Bounds(head=30, idle=0.1)) as front:
        silent, asked = await front.connect(), await front.connect()
        await front.ask(asked)
        for sock in (silent, asked):
            assert await gone(sock) == b""
            sock.close()
        await wait_for(lambda: front.open == 0)


async def test_headers_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with door(monkeypatch, Bounds()) as front:
        client = await front.connect()
        head = b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * listen.LONGEST_HEAD
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(client, head)
        assert (await gone(client)).startswith(b"HTTP/1.1 431")
        client.close()


async def test_a_reader_who_stopped_reading_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel, which alone knows whether anything is taken (TCP_USER_TIMEOUT)."""
    async with door(monkeypatch, Bounds(unread=0.5)) as front:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, front.address)
        await loop.sock_sendall(client, b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        await wait_for(lambda: front.open == 1)
        await wait_for(lambda: front.open == 0)
        assert b"hello" in await front.ask()
        client.close()


async def test_one_too_many_is_told_so_and_nobody_else_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    async with door(monkeypatch, Bounds(connections=3)) as front:
        inside = [await front.connect() for _ in range(3)]
        await wait_for(lambda: front.open == 3)
        refused = await front.connect()
        answer = await gone(refused)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer
        assert answer.endswith(b'{"error": "the server has 3 connections open and takes no more"}')
        assert b"hello" in await front.ask(inside[0])
        inside.pop().close()
        await wait_for(lambda: front.open == 2)
        assert b"hello" in await front.ask()
        for sock in (*inside, refused):
            sock.close()


async def test_one_address_cannot_take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connections._address(Writer("127.0.0.1")) == ""
    assert connections._address(Writer("fe80::1%eth0")) == "fe80::1"
    monkeypatch.setattr(connections, "_address", lambda writer: writer.get_extra_info("peername")[0])
    async with door(monkeypatch, Bounds(per_address=2)) as front:
        inside = [await front.connect() for _ in range(2)]
        await wait_for(lambda: front.open == 2)
        refused = await front.connect()
        assert b"your address has 2 connections open" in await gone(refused)
        for sock in (*inside, refused):
            sock.close()
        await wait_for(lambda: front.open == 0)
        assert front.held._by_address == {}, "addresses are forgotten"
        assert b"hello" in await front.ask()


class Writer(asyncio.StreamWriter):
    """One whose peer is where we say."""

    def __init__(self, host: str) -> None:
        self._host = host

    def __del__(self, *_: object) -> None:
        pass  # there is no transport to complain about

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._host, 1) if name == "peername" else default


@pytest.fixture
def descriptors() -> Iterator[None]:
    """The limit may be changed, up and down; afterwards it is what it was."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_without_descriptors_it_neither_spins_nor_stops_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cap here: this is what happens when the cap is set too high."""
    async with door(monkeypatch, Bounds()) as front:
        used = len(open_files())
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        clients = [socket.socket() for _ in range(40)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 50, hard))
        for client in clients:
            client.setblocking(False)
            client.connect_ex(front.address)
        await wait_for(lambda: front.open >= 5)
        await anyio.sleep(0.05)  # whatever it does now, it would do again and again
        before = time.process_time()
        await anyio.sleep(0.3)  # a stretch of time in which it must not be busy
        assert time.process_time() - before < 0.15
        assert front.open < 40
        for client in clients:
            client.close()
        await wait_for(lambda: front.open == 0)
        assert b"hello" in await front.ask()


@pytest.mark.usefixtures("descriptors")
async def test_two_thousand_idle_connections_cost_little_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = connections.raise_descriptor_limit()
    if limit < 5000:
        pytest.skip(f"only {limit} descriptors may be had")
    async with door(monkeypatch, Bounds(connections.affordable(limit))) as front:
        gc.collect()
        before = len(open_files())
        clients = [await front.connect() for _ in range(2000)]
        await wait_for(lambda: front.open == 2000)
        assert b"hello" in await front.ask()
        for client in clients:
            client.close()
        await wait_for(lambda: front.open == 0)
        await wait_for(lambda: len(open_files()) <= before)
        assert b"hello" in await front.ask()
