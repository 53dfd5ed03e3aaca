"""listen.py at its end, and at the end of a pause: whoever has asked by then is answered."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from hyperllamad import connections, listen, sockets
from hyperllamad.pauses import Pauses
from tests.listening import App

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@contextlib.asynccontextmanager
async def dialled(stop: anyio.Event, sock: socket.socket, **bounds: float) -> AsyncIterator[socket.socket]:
    """A client of a server that is already about to end, with a socket that can be written to between two turns."""
    async with anyio.create_task_group() as tasks:

        async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            limits = connections.Bounds(**bounds)  # type: ignore[arg-type]
            await listen.serve(App(), [sock], stop=stop.wait, grace=5, bounds=limits, task_status=task_status)

        with anyio.fail_after(10):
            await tasks.start(run)
            with socket.socket() as client:
                client.setblocking(False)
                await asyncio.get_running_loop().sock_connect(client, sock.getsockname())
                yield client
            stop.set()


async def rest(client: socket.socket) -> bytes:
    """Everything until the server hangs up."""
    got = b""
    while more := await asyncio.get_running_loop().sock_recv(client, 65536):
        got += more
    return got


async def until(wanted: Callable[[], bool]) -> None:
    while not wanted():
        await anyio.lowlevel.checkpoint()


async def turns(count: int) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


async def test_who_was_let_in_and_has_not_asked_yet_is_answered_at_the_end() -> None:
    stop, sock = anyio.Event(), sockets.open_tcp("127.0.0.1", 0)[0]
    async with dialled(stop, sock) as client:
        stop.set()
        await until(lambda: sock.fileno() == -1)  # nobody is let in any more
        await turns(50)  # more than the server needs to hang up, were it to
        client.send(REQUEST)
        got = await rest(client)
    assert got.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in got.lower()


async def test_who_asks_again_at_the_end_is_answered_and_told_to_come_no_more() -> None:
    stop, sock = anyio.Event(), sockets.open_tcp("127.0.0.1", 0)[0]
    async with dialled(stop, sock) as client:
        client.send(REQUEST)
        first = b""
        while not first.endswith(b"0\r\n\r\n"):
            first += await asyncio.get_running_loop().sock_recv(client, 65536)
        assert b"connection: close" not in first.lower()
        stop.set()
        await until(lambda: sock.fileno() == -1)
        await turns(50)
        client.send(REQUEST)
        got = await rest(client)
    assert got.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in got.lower()


@pytest.mark.parametrize("begun", [REQUEST, REQUEST[:7]], ids=["whole", "half"])
def test_who_asks_when_the_idle_time_is_over_is_answered(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer has run out and the request lies in the kernel: uvloop sees to its timers first."""
    made: list[Pauses] = []

    def noted(*args: Any) -> Pauses:
        made.append(Pauses(*args))
        return made[-1]

    monkeypatch.setattr(listen, "Pauses", noted)

    def idling() -> bool:
        """Whether the server waits for the next request of a connection, or for its end."""
        return bool(made[0].under_way) or any("_idle_timeout" in str(task.get_coro()) for task in asyncio.all_tasks())

    async def run() -> bytes:
        stop, sock = anyio.Event(), sockets.open_tcp("127.0.0.1", 0)[0]
        async with dialled(stop, sock, idle=0.05) as client:
            await until(idling)
            await turns(3)  # the timer runs
            client.send(begun)
            time.sleep(0.1)  # the loop is busy for longer than that
            await until(lambda: not idling())
            client.send(REQUEST.removeprefix(begun))
            got = await asyncio.get_running_loop().sock_recv(client, 65536)
            stop.set()
            return got

    assert anyio.run(run, backend_options={"use_uvloop": True}).startswith(b"HTTP/1.1 200")


async def test_who_asks_after_the_loop_has_last_looked_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, sock = anyio.Event(), sockets.open_tcp("127.0.0.1", 0)[0]
    monkeypatch.setattr(listen, "LAST_CALL", 0)
    async with dialled(stop, sock) as client:
        poll = select.poll

        def late() -> select.poll:
            client.send(REQUEST)
            return poll()

        monkeypatch.setattr(select, "poll", late)
        stop.set()
        got = await rest(client)
    assert got.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("reset", [False, True])
async def test_who_asks_in_the_very_turn_in_which_the_server_stops_is_answered(*, reset: bool) -> None:
    stop, sock = anyio.Event(), sockets.open_tcp("127.0.0.1", 0)[0]
    async with dialled(stop, sock):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.socket()) for _ in range(12)]
            for client in clients:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))  # close() sends RST
                client.setblocking(False)
                await asyncio.get_running_loop().sock_connect(client, sock.getsockname())
            await turns(10)  # all are let in
            stop.set()
            for client in clients:  # a turn each
                client.send(REQUEST)
                await turns(1)
                if reset:
                    client.close()
            if not reset:
                assert [(await rest(client))[:12] for client in clients] == [b"HTTP/1.1 200"] * len(clients)
