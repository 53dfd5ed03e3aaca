"""The way to the engine: a connection for each request, and an end that everybody hears of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from hyperllamad.engines.base import Engine
from hyperllamad.supervision.plan import resolve
from hyperllamad.supervision.upstream import BASE, Upstream
from tests.supervision import fake

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Server:
    """Sends the head and one chunk, and the end when it is allowed to."""

    def __init__(self) -> None:
        self.connections = 0
        self.hung_up = 0
        self.left = 0  # without having asked
        self.waiting: list[asyncio.StreamWriter] = []
        self.end = asyncio.Event()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.waiting.append(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left += 1
            writer.close()
            return
        writer.write(HEAD + b"5\r\nhello\r\n")
        ended = asyncio.ensure_future(self.end.wait())
        gone = asyncio.ensure_future(reader.read())
        await asyncio.wait([ended, gone], return_when=asyncio.FIRST_COMPLETED)
        self.hung_up += gone.done()
        for task in (ended, gone):
            task.cancel()
        writer.write(b"0\r\n\r\n")
        writer.close()


class Ahead(type(fake.ENGINE)):  # type: ignore[misc]
    """An engine that has nothing against connections that wait."""

    probe = replace(fake.ENGINE.probe, ahead=True)


@asynccontextmanager
async def upstream(runtime: Path, server: Server, engine: Engine = fake.ENGINE) -> AsyncIterator[Upstream]:
    model = fake.model(runtime, "m")
    path = str(runtime / "e.sock")
    settings = resolve(model, fake.configuration(runtime), fake.HOME)
    async with await asyncio.start_unix_server(server.connection, path):
        one = Upstream(engine, model, settings, path)
        try:
            with anyio.fail_after(10):
                yield one
        finally:
            one.end("the test is over")
            await one.close()
        assert one.session.closed


async def test_every_request_has_a_connection_of_its_own(runtime: Path) -> None:
    server = Server()
    server.end.set()
    async with upstream(runtime, server) as one:
        for number in range(3):
            async with one.session.get(BASE + "/health") as reply:
                assert await reply.read() == b"hello"
            assert server.connections == number + 1
        assert one.explain() == ""
        assert "open" in repr(one)


async def test_a_cut_wakes_whoever_waits_for_the_next_bytes(runtime: Path) -> None:
    server = Server()
    async with upstream(runtime, server) as one:
        waiting = anyio.Event()
        outcomes = []

        async def read() -> None:
            async with one.session.get(BASE + "/health") as reply:
                assert await reply.content.readany() == b"hello"
                waiting.set()
                with pytest.raises(aiohttp.ClientError):
                    await reply.content.readany()
                outcomes.append("woken")

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await waiting.wait()
            await anyio.wait_all_tasks_blocked()
            one.cut("because")
        assert outcomes == ["woken"]
        assert one.explain() == "because"
        assert not one.died.is_set()
        while not server.hung_up:
            await anyio.sleep(0.001)


async def test_after_a_cut_there_are_no_new_requests(runtime: Path) -> None:
    server = Server()
    async with upstream(runtime, server) as one:
        one.cut("because")
        with pytest.raises(aiohttp.ClientConnectionError, match="because"):
            await one.session.get(BASE + "/health")
        assert server.connections == 0


async def test_a_cut_is_the_end_of_what_clients_asked_for_too(runtime: Path) -> None:
    server = Server()
    async with upstream(runtime, server) as one:
        answer = await one.post("/x", b"")
        assert await answer.content.readany() == b"hello"
        waiting = asyncio.ensure_future(answer.content.readany())
        await anyio.wait_all_tasks_blocked()
        one.cut("because")
        with pytest.raises(aiohttp.ClientError):
            await waiting
        with pytest.raises(aiohttp.ClientConnectionError, match="because"):
            await one.post("/x", b"")
        assert server.connections == 1
        while not server.hung_up:
            await anyio.sleep(0.001)


async def test_a_cut_while_a_client_waits_for_a_head(runtime: Path) -> None:
    async with upstream(runtime, Server()) as one:
        waiting = asyncio.ensure_future(one.post("/x", b""))
        await asyncio.sleep(0)
        one.cut("because")
        with pytest.raises(aiohttp.ClientError):
            await waiting


async def test_a_cut_while_connecting_leaves_no_connection(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    async with upstream(runtime, server) as one:
        connect = aiohttp.UnixConnector.connect

        async def cut_meanwhile(self: aiohttp.UnixConnector, *args: Any, **kwargs: Any) -> Any:
            connection = await connect(self, *args, **kwargs)
            one.cut("because")
            return connection

        monkeypatch.setattr(aiohttp.UnixConnector, "connect", cut_meanwhile)
        with pytest.raises(aiohttp.ClientConnectionError, match="because"):
            await one.session.get(BASE + "/health")


async def test_the_first_reason_stays(runtime: Path) -> None:
    async with upstream(runtime, Server()) as one:
        one.cut("first")
        one.end("second")
        assert one.explain() == "first"
        assert one.died.is_set()
        assert "first" in repr(one)


async def eventually(check: Callable[[], bool]) -> None:
    while not check():
        await anyio.sleep(0.001)


async def accepted_all(runtime: Path, server: Server) -> None:
    """Everybody who has connected by now was let in: one more comes behind them, and leaves."""
    left = server.left
    _, writer = await asyncio.open_unix_connection(str(runtime / "e.sock"))
    writer.close()
    await eventually(lambda: server.left == left + 1)


async def answered(one: Upstream) -> None:
    work = one.begin(2)
    answer = await one.post("/v1/x", b"{}")
    assert await answer.read() == b"hello"
    work.end()


async def test_a_connection_is_ready_for_the_next_request(runtime: Path) -> None:
    server = Server()
    server.end.set()
    async with upstream(runtime, server, Ahead()) as one:
        for number in range(3):
            await answered(one)
            await eventually(lambda: server.connections == number + 2)  # noqa: B023
        server.end.clear()
        first, second = one.begin(2), one.begin(2)
        answers = [await one.post("/v1/x", b"{}") for _ in range(2)]  # the second one finds none
        assert server.connections == 5
        second.end()
        await accepted_all(runtime, server)
        assert server.connections == 5 + 1  # among others there is none made ahead
        server.end.set()
        assert [await answer.read() for answer in answers] == [b"hello", b"hello"]
        first.end()
        await eventually(lambda: server.connections == 7)
        one.cut("over")
        await eventually(lambda: server.left == 2)


async def test_one_that_the_engine_has_closed_is_no_loss(runtime: Path) -> None:
    server = Server()
    server.end.set()
    async with upstream(runtime, server, Ahead()) as one:
        await answered(one)
        await eventually(lambda: server.connections == 2)
        server.waiting[-1].transport.abort()
        await eventually(lambda: server.left == 1)
        await answered(one)
        await eventually(lambda: server.connections == 4)


async def test_an_engine_that_would_spend_a_thread_on_it_has_none(runtime: Path) -> None:
    server = Server()
    server.end.set()
    async with upstream(runtime, server) as one:
        await answered(one)
        await accepted_all(runtime, server)
        assert server.connections == 1 + 1
