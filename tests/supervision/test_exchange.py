"""One request to an engine: what is sent and when, what comes back, and every way in which it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from hyperllamad.supervision import exchange
from hyperllamad.supervision.exchange import Answer

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
SHORT = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


class Engine:
    """Answers each request as it is told to, and remembers what was sent and who hung up."""

    def __init__(self, path: Path, says: Callable[[Writer], Awaitable[None]]) -> None:
        self.path = str(path)
        self._says = says
        self.requests: list[bytes] = []
        self.hung_up = self.open = 0

    async def connection(self, reader: Reader, writer: Writer) -> None:
        self.open += 1
        try:
            await self._serve(reader, writer)
        finally:
            self.open -= 1

    async def _serve(self, reader: Reader, writer: Writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(size))
        answering = asyncio.ensure_future(self._says(writer))
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
        self.hung_up += 1
        answering.cancel()
        writer.transport.abort()
        await asyncio.wait([answering])
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def post(self, payload: bytes = b"{}", opened: Callable[[Any], None] = lambda _: None) -> Answer:
        return await exchange.post(self.path, "/v1/x", payload, opened)

    async def wait_hung_up(self, times: int = 1) -> None:
        while self.hung_up < times:
            await anyio.sleep(0.001)


@asynccontextmanager
async def engine(where: Path, says: Callable[[Writer], Awaitable[None]] | bytes) -> AsyncIterator[Engine]:
    async def say(writer: Writer) -> None:
        assert isinstance(says, bytes)
        writer.write(says)

    one = Engine(where / "e.sock", say if isinstance(says, bytes) else says)
    async with await asyncio.start_unix_server(one.connection, one.path):
        with anyio.fail_after(20):
            yield one
            while one.open:
                await anyio.sleep(0.001)


async def test_what_is_sent_and_what_comes_back(tmp_path: Path) -> None:
    async with engine(tmp_path, SHORT) as one:
        for number in range(3):
            answer = await one.post(b'{"a":1}')
            assert answer.status == 200
            assert await answer.read() == b"hello"
            await one.wait_hung_up(number + 1)  # by itself: some engines keep a thread for each connection
            answer.close()
        head, _, body = one.requests[0].partition(b"\r\n\r\n")
        first, *fields = head.split(b"\r\n")
        assert first == b"POST /v1/x HTTP/1.1"
        assert {field.lower() for field in fields} == {
            b"host: engine", b"accept-encoding: identity", b"content-type: application/json", b"content-length: 7",
        }  # fmt: skip
        assert body == b'{"a":1}'


async def test_it_is_sent_before_anything_is_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        asking = exchange.post(str(tmp_path / "s"), "/v1/x", b"{}", lambda _: None)
        asking.send(None)  # as far as the first wait
        accepted, _ = listener.accept()
        with accepted:
            accepted.setblocking(False)
            assert accepted.recv(1 << 16).endswith(b"\r\n\r\n{}")
        asking.close()


async def test_a_request_larger_than_any_buffer_arrives_whole(tmp_path: Path) -> None:
    large = b"%d" % 7 * (5 << 20)
    async with engine(tmp_path, SHORT) as one:
        answer = await one.post(large)
        assert await answer.read() == b"hello"
        assert one.requests[0].partition(b"\r\n\r\n")[2] == large


async def test_pieces_come_as_they_are_said_and_no_faster_than_they_are_read(tmp_path: Path) -> None:
    said = 0

    async def endless(writer: Writer) -> None:
        nonlocal said
        writer.write(CHUNKED)
        while True:
            writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            await writer.drain()
            said += 1000

    async with engine(tmp_path, endless) as one:
        answer = await one.post()
        read = len(await answer.content.readany())
        before = -1
        while before != said:
            before = said
            await anyio.sleep(0.05)
        assert read < said < 1 << 21  # what two sockets and two buffers hold
        while read < 1 << 22:
            read += len(await answer.content.readany())
        answer.close()
        await one.wait_hung_up()


async def test_a_word_in_between_is_not_the_answer(tmp_path: Path) -> None:
    async with engine(tmp_path, b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + SHORT) as one:
        answer = await one.post()
        assert (answer.status, await answer.read()) == (200, b"hello")


async def test_without_a_length_the_end_of_the_connection_is_the_end(tmp_path: Path) -> None:
    async def says(writer: Writer) -> None:
        writer.write(b"HTTP/1.0 404 Not Found\r\n\r\nnot here")
        writer.close()

    async with engine(tmp_path, says) as one:
        answer = await one.post()
        assert (answer.status, await answer.read()) == (404, b"not here")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", b"what?\r\n\r\n", b"HTTP/1.1 2000000 OK\r\n\r\n"])
async def test_no_answer_is_an_error(tmp_path: Path, said: bytes) -> None:
    async def says(writer: Writer) -> None:
        writer.write(said)
        writer.close()

    async with engine(tmp_path, says) as one:
        with pytest.raises(aiohttp.ClientError):
            await one.post()
        await one.wait_hung_up()


@pytest.mark.parametrize("said", [b"5\r\nhel", b"5\r\nhello\r\n", b"zzz\r\n"])
async def test_half_an_answer_is_an_error(tmp_path: Path, said: bytes) -> None:
    read = asyncio.Event()

    async def says(writer: Writer) -> None:
        writer.write(CHUNKED + b"2\r\nhi\r\n")
        await read.wait()
        writer.write(said)
        writer.close()

    async with engine(tmp_path, says) as one:
        answer = await one.post()
        assert await answer.content.readany() == b"hi"
        read.set()
        with pytest.raises(aiohttp.ClientError):
            while await answer.content.readany():
                pass
        await one.wait_hung_up()


async def test_who_leaves_hangs_up(tmp_path: Path) -> None:
    async with engine(tmp_path, b"") as one:
        with anyio.move_on_after(0.05):
            await one.post()
        await one.wait_hung_up()


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_whatever_turn_he_leaves_in_no_descriptor_stays(tmp_path: Path) -> None:
    """On the loop that the daemon runs on: who owns a socket that is being handed over is the loop's own affair."""

    async def leave_at_every_turn() -> None:
        async with engine(tmp_path, b"") as one:
            before = descriptors()
            for turns in range(5):
                asking = asyncio.ensure_future(one.post())
                for _ in range(turns):
                    await asyncio.sleep(0)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
            await one.wait_hung_up(4)  # before its first turn it has not begun
            while descriptors() > before:
                await anyio.sleep(0.001)

    anyio.run(leave_at_every_turn, backend_options={"use_uvloop": True})


async def test_who_may_not_ask_any_more_hangs_up(tmp_path: Path) -> None:
    def refuse(_: object) -> None:
        raise aiohttp.ClientConnectionError("because")

    async with engine(tmp_path, SHORT) as one:
        with pytest.raises(aiohttp.ClientConnectionError, match="because"):
            await one.post(opened=refuse)
        await one.wait_hung_up()


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await exchange.post(str(tmp_path / "none"), "/", b"", lambda _: None)


async def test_an_engine_that_accepts_nobody_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(path)  # the queue is full now
            monkeypatch.setattr(exchange, "PATIENCE", 0.02)
            with pytest.raises(TimeoutError):
                await exchange.post(path, "/", b"", lambda _: None)
            monkeypatch.setattr(exchange, "PATIENCE", 20)
            asking = asyncio.ensure_future(exchange.post(path, "/", b"", lambda _: None))
            await anyio.sleep(0.02)
            assert not asking.done()
            listener.accept()[0].close()
            ours, _ = await asyncio.get_running_loop().run_in_executor(None, listener.accept)
            with ours:
                ours.sendall(SHORT)
                assert await (await asking).read() == b"hello"
