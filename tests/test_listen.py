"""listen.py: the contract with Hypercorn's inner names, the bounded end, peers."""

from __future__ import annotations

import gc
import os
import socket
import struct
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from hyperllamad import listen, sockets
from tests.listening import App, answer, ask


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
