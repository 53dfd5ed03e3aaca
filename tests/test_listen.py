"""listen.py: the contract with Hypercorn's inner names, the bounded end, peers, stale socket files."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from hyperllamad import listen


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
    sock = listen.open_unix(path)

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
    app, stop, sock = App(), anyio.Event(), listen.open_tcp("127.0.0.1", 0)[0]

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


def test_a_stale_socket_file_is_replaced(unix: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(unix))
    with listen.open_unix(unix, mode=0o600) as sock:
        assert sock.getsockname() == str(unix)
        assert unix.stat().st_mode & 0o777 == 0o600


def test_a_living_socket_is_left_alone(unix: Path) -> None:
    with listen.open_unix(unix) as alive:
        alive.listen()
        with pytest.raises(OSError, match="another hyperllamad answers there"):
            listen.open_unix(unix)


def test_a_file_that_is_no_socket_is_left_alone(unix: Path) -> None:
    unix.write_text("precious")
    with pytest.raises(OSError, match="not a socket"):
        listen.open_unix(unix)
    assert unix.read_text() == "precious"


def test_a_long_path_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="107 bytes"):
        listen.open_unix(tmp_path / ("x" * 120))


def test_a_taken_port_is_named() -> None:
    first = listen.open_tcp("127.0.0.1", 0)[0]
    first.listen()
    port = first.getsockname()[1]
    with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
        listen.open_tcp("127.0.0.1", port)
    first.close()


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
