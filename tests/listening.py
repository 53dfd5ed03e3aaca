"""An app that listen.py can serve, and a client that speaks to it byte by byte, for tests."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel


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
