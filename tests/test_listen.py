"""listen.py: the contract with Hypercorn's inner names, the last call and the bounded end, peers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import socket
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from hyperllamad import connections, listen, sockets
from hyperllamad.pauses import Pauses

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class App:
    """Answers with what it knows of the connection; /stream goes on until the client or the server ends it."""

    def __init__(self) -> None:
        self.peers: list[Any] = []
        self.wires: list[bool] = []
        self.streaming = anyio.Event()
        self.ended = anyio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.peers.append(scope["state"]["peer"])
        self.wires.append("wire" in scope["state"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        if scope["path"] == "/wire":
            for word in (b" second", b" third"):
                await scope["state"]["wire"].write(word)
        if scope["path"] == "/stream":
            await self.stream(receive, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def stream(self, receive: Any, send: Any) -> None:
        """Like Quart: the handler is cancelled when the client has gone."""

        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(until_gone)
                self.streaming.set()
                while True:
                    await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                    await anyio.lowlevel.checkpoint()
        finally:
            self.ended.set()


async def ask(stream: anyio.abc.ByteStream, path: str, *, version: str = "1.1", method: str = "GET") -> None:
    await stream.send(f"{method} {path} HTTP/{version}\r\nhost: x\r\n\r\n".encode())


async def answer(stream: anyio.abc.ByteStream) -> bytes:
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        got += await stream.receive()
    return got


@pytest.fixture
def unix(tmp_path: Path) -> Path:
    return tmp_path / "s"


async def running(tasks: anyio.abc.TaskGroup, app: App, path: Path, grace: float = 5.0) -> anyio.Event:
    stop = anyio.Event()
    sock = sockets.open_unix(path)

    async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        await listen.serve(app, [sock], stop=stop.wait, grace=grace, task_status=task_status)

    await tasks.start(run)
    return stop


async def test_peer_is_known_and_the_wire_frames_chunks(unix: Path) -> None:
    app = App()
    async with anyio.create_task_group() as tasks:
        stop = await running(tasks, app, unix)
        async with await anyio.connect_unix(unix) as client:
            for _ in range(2):  # the connection is good for a second request after raw chunks
                await ask(client, "/wire")
                got = await answer(client)
                assert got.split(b"\r\n\r\n", 1)[1] == b"5\r\nfirst\r\n7\r\n second\r\n6\r\n third\r\n0\r\n\r\n"
        stop.set()
    peer = app.peers[0]
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert set(os.getgroups()) <= peer.groups


@pytest.mark.parametrize(("version", "method"), [("1.0", "GET"), ("1.1", "HEAD")])
async def test_no_wire_where_it_is_not_sound(unix: Path, version: str, method: str) -> None:
    app = App()
    async with anyio.create_task_group() as tasks:
        stop = await running(tasks, app, unix)
        async with await anyio.connect_unix(unix) as client:
            await ask(client, "/", version=version, method=method)
            await client.receive()
        stop.set()
    assert app.wires == [False]


@pytest.mark.parametrize("reset", [True, False])
async def test_a_connection_that_ends_between_two_requests_is_gone(
    monkeypatch: pytest.MonkeyPatch, *, reset: bool
) -> None:
    held: list[listen.Connections] = []

    class Seen(listen.Connections):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            held.append(self)

    monkeypatch.setattr(listen, "Connections", Seen)
    app, stop, sock = App(), anyio.Event(), sockets.open_tcp("127.0.0.1", 0)[0]

    async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        await listen.serve(app, [sock], stop=stop.wait, grace=5, task_status=task_status)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            await tasks.start(run)
            client = await anyio.connect_tcp(*sock.getsockname())
            await ask(client, "/")
            await answer(client)
            raw = client.extra(anyio.abc.SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))  # close() sends RST
            await client.aclose()
            await held[0].wait_none_left()
            stop.set()


async def test_connections_that_are_over_leave_nothing_for_the_collector(
    unix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python would find a circle only after tens of thousands of objects more: the daemon grows by what waits there."""
    made: list[weakref.ref[listen._Server]] = []

    class Seen(listen._Server):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr(listen, "_Server", Seen)
    gc.disable()
    try:
        async with anyio.create_task_group() as tasks:
            stop = await running(tasks, App(), unix)
            for path in ("/", "/wire", ""):
                async with await anyio.connect_unix(unix) as client:
                    if path:
                        await ask(client, path)
                        await client.receive()
            with anyio.fail_after(10):
                while len(made) < 3 or any(one() is not None for one in made):
                    await anyio.sleep(0.005)
            stop.set()
    finally:
        gc.enable()


async def test_a_client_that_stopped_reading_is_hung_up_at_the_end_of_grace(unix: Path) -> None:
    app = App()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            stop = await running(tasks, app, unix, grace=0.2)
            client = await anyio.connect_unix(unix)
            await ask(client, "/stream")
            await app.streaming.wait()
            stop.set()
        await client.aclose()
    assert app.ended.is_set()


async def test_idle_connections_do_not_delay_the_end(unix: Path) -> None:
    app = App()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            stop = await running(tasks, app, unix, grace=60)
            async with await anyio.connect_unix(unix) as client:
                await ask(client, "/")
                await answer(client)
                stop.set()
                with pytest.raises(anyio.EndOfStream):
                    await client.receive()


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


async def test_the_end_comes_too_when_the_group_falls(unix: Path) -> None:
    app = App()
    with anyio.fail_after(10), pytest.raises(ExceptionGroup) as fallen:
        async with anyio.create_task_group() as tasks:
            await running(tasks, app, unix, grace=60)
            client = await anyio.connect_unix(unix)
            await ask(client, "/stream")
            await app.streaming.wait()
            raise ValueError("fall")
    await client.aclose()
    assert fallen.group_contains(ValueError, match="fall")
    assert app.ended.is_set()


_CONNECT = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a child groups")
@pytest.mark.parametrize("groups", [[4242, 4343], [*range(5000, 5300)]], ids=["few", "more than the kernel tells us"])
def test_the_peer_has_its_supplementary_groups(tmp_path: Path, groups: list[int]) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        listening.settimeout(20)
        with subprocess.Popen([sys.executable, "-c", _CONNECT, path], extra_groups=groups) as child:
            accepted, _ = listening.accept()
            with accepted:
                peer = listen.Peer.of(accepted)
            child.wait(20)
    assert peer is not None
    # Of more than 256 only those of the group database are known: none of these, and that is no error.
    assert (set(groups) <= peer.groups) is (len(groups) <= 256)
    assert peer.gid in peer.groups
