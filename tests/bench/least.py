"""Servers that do as little as can be done: `python -m tests.bench.least KIND PORT [ENGINE_SOCKET]`, KIND one of

- `protocol`: answers whatever comes with one line, without reading it;
- `hypercorn`: the same through our listener and Hypercorn, from an application that reads the body and no more;
- `quart`: the same from a route of Quart's;
- `bytes`: hands on to the engine's socket, and back, what comes, whatever it is.

What is measured through them is what the daemon cannot be quicker than with the same layers.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, cast

import anyio
from quart import Quart, Response, request

from hyperllamad import listen, sockets

LINE = b'{"model":"m","created_at":"2026-01-01T00:00:00.000000Z","response":"a","done":true}\n'
TYPE = "application/x-ndjson"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (TYPE.encode(), len(LINE))


class Answer(asyncio.Protocol):
    """For requests that come in one piece."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(HEAD + LINE)


class Engine(asyncio.Protocol):
    """Its end of a connection that is handed on."""

    def __init__(self, client: asyncio.Transport) -> None:
        self.client = client

    def data_received(self, data: bytes) -> None:
        self.client.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.client.close()


class Client(asyncio.Protocol):
    """Connects to the engine when it is connected to, as each request of ours has a connection of its own there."""

    transport: asyncio.Transport

    def __init__(self, engine: str) -> None:
        self.path = engine
        self.early: list[bytes] = []
        self.engine: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.connecting = asyncio.ensure_future(self.connect())

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        made, _ = await loop.create_unix_connection(lambda: Engine(self.transport), self.path)
        self.engine = cast("asyncio.Transport", made)
        self.engine.writelines(self.early)

    def data_received(self, data: bytes) -> None:
        if self.engine is None:
            self.early.append(data)
        else:
            self.engine.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.engine is not None:
            self.engine.close()


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An ASGI application without a framework."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", TYPE.encode())]})
    await send({"type": "http.response.body", "body": LINE, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def quart() -> Quart:
    app = Quart(__name__)

    @app.post("/api/generate")
    async def generate() -> Response:
        await request.get_data()

        async def lines() -> AsyncIterator[bytes]:
            yield LINE

        return Response(lines(), content_type=TYPE)  # type: ignore[arg-type]

    return app


async def main(kind: str, port: int, engine: str) -> None:
    if kind in {"protocol", "bytes"}:
        protocol = Answer if kind == "protocol" else lambda: Client(engine)
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port)
        await server.serve_forever()
    app = {"hypercorn": bare, "quart": quart()}[kind]
    await listen.serve(app, sockets.open_tcp("127.0.0.1", port), stop=anyio.Event().wait, grace=1)


if __name__ == "__main__":
    engine = sys.argv[3] if len(sys.argv) > 3 else ""
    anyio.run(main, sys.argv[1], int(sys.argv[2]), engine, backend_options={"use_uvloop": True})
