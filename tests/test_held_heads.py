"""wire.Wire holds a head until something follows it, and takes it back when another is sent after all."""

from __future__ import annotations

import contextlib
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from hyperllamad import listen, sockets
from tests.listening import answer, ask

Act = Callable[[Any, Any, Any], Awaitable[None]]  # wire, receive, send
HELD = {"type": "http.response.start", "status": 200, "headers": [(b"x-which", b"held")]}
OTHER = {"type": "http.response.start", "status": 500, "headers": [(b"x-which", b"other"), (b"content-length", b"5")]}
END = {"type": "http.response.body", "body": b"", "more_body": False}
SORRY = {"type": "http.response.body", "body": b"sorry", "more_body": False}


class Holding:
    """An app that reads its request, has the head held, and then does what the test wants."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.held = anyio.Event()
        self.goes_on = anyio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        wire = scope["state"]["wire"]
        await wire.hold(send(HELD))
        assert wire.holds
        self.held.set()
        await self.goes_on.wait()
        await self.act(wire, receive, send)


@contextlib.asynccontextmanager
async def served(app: Holding, path: Path) -> AsyncIterator[anyio.abc.ByteStream]:
    """A client of a server with that app."""
    stop, sock = anyio.Event(), sockets.open_unix(path)

    async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        await listen.serve(app, [sock], stop=stop.wait, grace=1, task_status=task_status)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            await tasks.start(run)
            async with await anyio.connect_unix(path) as client:
                yield client
            stop.set()


async def by_wire(wire: Any, _: Any, send: Any) -> None:
    await wire.write(b"first")
    await send(END)


async def by_body(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await send(END)


async def by_end(_: Any, __: Any, send: Any) -> None:
    await send(END)


async def taken_back(wire: Any, _: Any, send: Any) -> None:
    wire.take_back()
    assert not wire.holds
    await send(OTHER)
    await send(SORRY)


def nothing_came(client: anyio.abc.ByteStream) -> bool:
    """What the server writes lies in our socket at once, and nobody else reads it."""
    unread = select.poll()
    unread.register(client.extra(anyio.abc.SocketAttribute.raw_socket), select.POLLIN)
    return not unread.poll(0)


async def whole(client: anyio.abc.ByteStream, end: bytes = b"sorry") -> bytes:
    got = b""
    while not got.endswith(end):
        got += await client.receive()
    return got


@pytest.mark.parametrize(("act", "body"), [(by_wire, b"5\r\nfirst\r\n"), (by_body, b"5\r\nfirst\r\n"), (by_end, b"")])
async def test_a_held_head_leaves_with_what_follows(tmp_path: Path, act: Act, body: bytes) -> None:
    app = Holding(act)
    async with served(app, tmp_path / "s") as client:
        for _ in range(2):  # the connection is good for another
            app.held = anyio.Event()
            app.goes_on = anyio.Event()
            await ask(client, "/")
            await app.held.wait()
            assert nothing_came(client)
            app.goes_on.set()
            head, _, rest = (await answer(client)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"x-which: held" in head
            assert rest == body + b"0\r\n\r\n"


async def test_a_head_and_the_first_chunk_come_together(tmp_path: Path) -> None:
    app = Holding(by_wire)
    app.goes_on.set()
    async with served(app, tmp_path / "s") as client:
        await ask(client, "/")
        assert b"\r\n\r\n5\r\nfirst\r\n" in await client.receive()


@pytest.mark.parametrize("asks", [b"", b"Connection: close\r\n"])
async def test_another_head_takes_the_place_of_a_held_one(tmp_path: Path, asks: bytes) -> None:
    app = Holding(taken_back)
    app.goes_on.set()
    async with served(app, tmp_path / "s") as client:
        request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n%s\r\nabc" % asks
        await client.send(request)
        head, _, _ = (await whole(client)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 500")
        assert b"x-which: other" in head
        assert b"held" not in head
        assert (b"connection: close" in head.lower()) == bool(asks)
        if asks:
            with pytest.raises(anyio.EndOfStream):
                await client.receive()
        else:  # and the next request is answered as if nothing had been
            app.act = by_wire
            await client.send(request)
            assert (await answer(client)).startswith(b"HTTP/1.1 200")


async def test_what_was_asked_behind_it_is_not_lost(tmp_path: Path) -> None:
    """Two requests in one packet: the second lies in h11 when the first one's head is taken back."""
    app = Holding(taken_back)
    app.goes_on.set()
    async with served(app, tmp_path / "s") as client:
        await client.send(2 * b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
        got = await whole(client)
        if got.count(b"sorry") == 1:
            got += await whole(client)
        assert got.count(b"HTTP/1.1 500") == got.count(b"sorry") == 2


async def test_a_head_that_was_sent_is_not_taken_back(tmp_path: Path) -> None:
    async def act(wire: Any, _: Any, send: Any) -> None:
        await wire.write(b"first")
        with pytest.raises(RuntimeError, match="may have been read"):
            wire.take_back()
        await send(END)
        checked.set()

    app, checked = Holding(act), anyio.Event()
    app.goes_on.set()
    async with served(app, tmp_path / "s") as client:
        await ask(client, "/")
        assert (await answer(client)).endswith(b"\r\n\r\n5\r\nfirst\r\n0\r\n\r\n")
        await checked.wait()


@pytest.mark.parametrize("takes", [True, False])
async def test_a_client_that_leaves_meanwhile_is_no_fault(tmp_path: Path, takes: bool) -> None:
    async def act(wire: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if takes:
            with pytest.raises(ConnectionError):
                wire.take_back()
        gone.set()

    app, gone = Holding(act), anyio.Event()
    async with served(app, tmp_path / "s") as client:
        await ask(client, "/")
        await app.held.wait()
        await client.aclose()
        app.goes_on.set()
        await gone.wait()
