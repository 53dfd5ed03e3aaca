"""A scripted engine for benchmarks: OpenAI SSE over a Unix socket, one token an event, every stream in step.

`python -m tests.bench.upstream SOCKET TOKENS STEP_MS`.  Like a batching engine, each step gives every open stream one
token; nothing is computed, so that what is measured is what stands in front of it.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}\n\n'
)
LAST = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop"}]}\n\n'
)
USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":[],'
    b'"usage":{"prompt_tokens":8,"completion_tokens":%d,"total_tokens":%d}}\n\ndata: [DONE]\n\n'
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Engine:
    def __init__(self, tokens: int, step: float) -> None:
        self.tokens, self.step = tokens, step
        self.open: dict[asyncio.StreamWriter, int] = {}
        self.ends: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(v.split(b":")[1]) for v in head.lower().split(b"\r\n") if v.startswith(b"content-length")), 0
                )
                await reader.readexactly(length)
                if head.startswith(b"GET"):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    continue
                writer.write(HEAD)
                self.open[writer], self.ends[writer] = 0, asyncio.Event()
                await self.ends[writer].wait()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.pop(writer, None)
            writer.close()

    async def steps(self) -> None:
        while True:
            await asyncio.sleep(self.step)
            for writer, sent in list(self.open.items()):
                if sent < self.tokens:
                    writer.write(chunk(TOKEN))
                    self.open[writer] = sent + 1
                    continue
                writer.write(chunk(LAST) + chunk(USAGE % (self.tokens, self.tokens + 8)) + b"0\r\n\r\n")
                del self.open[writer]
                self.ends.pop(writer).set()


async def main(path: str, tokens: int, step: float) -> None:
    engine = Engine(tokens, step)
    async with await asyncio.start_unix_server(engine.serve, path, backlog=1024):
        await engine.steps()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1000))
