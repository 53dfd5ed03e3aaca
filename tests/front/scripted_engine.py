"""An engine that says what a test tells it to: a raw HTTP/1.1 server on a Unix socket.

Raw, because the faults are the point: a stream cut in the middle of a chunk, half an event, garbage, silence.  It
remembers every request, and for every stream whether it was taken to its end or left by the other side.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings"


@dataclass
class Asked:
    """A request as it came, and what became of its answer."""

    path: str
    body: dict[str, Any]
    finished: bool = False  # everything was written
    aborted: bool = False  # the other side left before that


@dataclass
class Whole:
    """An answer with a length."""

    status: int
    body: bytes
    content_type: str = "application/json"


@dataclass
class Stream:
    """A chunked answer: pieces written one by one.  An Event among them is waited for."""

    pieces: Iterable[bytes | asyncio.Event]
    cut: bool = False  # close without the last chunk
    status: int = 200


Answer = Whole | Stream
Script = Callable[[Asked], Answer]


def recording(name: str) -> bytes:
    """What a real engine streamed once."""
    return (RECORDINGS / f"{name}.sse").read_bytes()


def events(data: bytes) -> list[bytes]:
    """A recording as the events it is made of."""
    end = b"\r\n\r\n" if b"\r\n\r\n" in data else b"\n\n"
    return [event + end for event in data.split(end) if event]


def chat_event(content: str | None = None, **more: Any) -> bytes:
    """A chat chunk."""
    finish = more.pop("finish_reason", None)
    delta = {"content": content, **more} if content is not None else more
    return b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"


def short_chat(*words: str) -> list[bytes]:
    """A whole good chat stream."""
    return [*(chat_event(word) for word in words), chat_event(finish_reason="stop"), USAGE, DONE]


@dataclass
class ScriptedEngine:
    """Serves `script`; `asked` is everything that came."""

    script: Script
    asked: list[Asked] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            asked = Asked(lines[0].split(" ")[1], json.loads(body) if body else {})
            self.asked.append(asked)
            await self._answer(asked, self.script(asked), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, asked: Asked, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if isinstance(answer, Whole):
            writer.write(
                b"HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (answer.status, answer.content_type.encode(), len(answer.body), answer.body)
            )
            await writer.drain()
            asked.finished = True
            return
        left = asyncio.ensure_future(reader.read(1))
        telling = asyncio.ensure_future(self._tell(answer, writer))
        await asyncio.wait({left, telling}, return_when=asyncio.FIRST_COMPLETED)
        if telling.done() and telling.exception() is None:
            asked.finished = True
        else:
            asked.aborted = True
        for task in (left, telling):
            task.cancel()
        await asyncio.gather(left, telling, return_exceptions=True)

    async def _tell(self, answer: Stream, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 %d X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" % answer.status
        )
        for piece in answer.pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            else:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
                await asyncio.sleep(0)
        if answer.cut:
            writer.transport.abort()
        else:
            writer.write(b"0\r\n\r\n")
            await writer.drain()


@asynccontextmanager
async def running(script: Script, path: Path) -> AsyncIterator[ScriptedEngine]:
    """The engine, listening on `path`."""
    engine = ScriptedEngine(script)
    # As many as `n` may be ask at once; a socket whose queue is full is an engine that has gone, to whoever connects.
    server = await asyncio.start_unix_server(engine.handle, str(path), backlog=512)
    try:
        yield engine
    finally:
        server.close()


def by_path(answers: Mapping[str, Answer]) -> Script:
    """The same answer to every request for a path."""
    return lambda asked: answers[asked.path]
