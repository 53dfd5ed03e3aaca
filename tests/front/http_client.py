"""A client that sends exactly what it is told and shows exactly what came: tests of a wire need to see the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11


@dataclass
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for found, value in self.headers if found == name.lower()), None)

    def all(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found == name.lower()]

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        """The objects of an NDJSON body, which must end in a newline and hold no blank line."""
        assert self.body.endswith(b"\n")
        return [json.loads(line) for line in self.body[:-1].split(b"\n")]

    @property
    def text(self) -> str:
        return self.body.decode()


class Exchange:
    """One request under way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._connection = h11.Connection(h11.CLIENT)

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> None:
        sent = {"Host": "localhost:11434", **headers}
        if body is not None:
            sent["Content-Length"] = str(len(body))
        # Written by hand: h11 would refuse some of what must be tried.
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))
        await self.writer.drain()
        shown = [("Host", "x"), ("Content-Length", str(len(body or b"")))]
        self._connection.send(h11.Request(method=method, target="/", headers=shown))
        if body:
            self._connection.send(h11.Data(data=body))
        self._connection.send(h11.EndOfMessage())

    async def event(self) -> Any:
        """The next h11 event."""
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            self._connection.receive_data(await self.reader.read(65536))
        return event

    async def data(self) -> bytes:
        """The next piece of the body, b"" at its end."""
        event = await self.event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def reply(self) -> Reply:
        head = await self.event()
        body = b""
        while piece := await self.data():
            body += piece
        headers = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
        return Reply(head.status_code, headers, body)


class Client:
    """Asks the server behind a Unix socket, a connection for each request."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)

    @asynccontextmanager
    async def exchange(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> AsyncIterator[Exchange]:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            exchange = Exchange(reader, writer)
            data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
            await exchange.send(method, path, headers, b"" if data is None and method == "POST" else data)
            yield exchange
        finally:
            writer.close()

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        async with self.exchange(method, path, body, **options) as exchange:
            return await exchange.reply()

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Reply:
        return await self.ask("POST", path, body, **options)
