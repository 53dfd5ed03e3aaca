"""A real child that speaks the engines' HTTP over a Unix socket, with every vice an engine has shown, by switch.

Standard library only, started as `python -I -S fake_engine.py --socket PATH [vices]`; listens after about 0.1 s.
It counts: the words of an answer are always "one two three ...", ten of them unless the request's `max_tokens` says
fewer or its own field `words` says otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
REASONS = {200: "OK", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}
GARBAGE = b'data: {"choices": [{"delta": \xff\xfe <not json>\n\n'


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--slow", type=float, default=0.0, metavar="S", help="take S seconds to load")
    parser.add_argument("--never-ready", action="store_true", help="listen, and answer /health with 503 for ever")
    parser.add_argument("--exit", type=int, metavar="N", help="print an error and exit with N while loading")
    parser.add_argument("--exit-after-tokens", type=int, metavar="K", help="exit with 0, as vLLM does when it crashes")
    parser.add_argument("--segv-after-tokens", type=int, metavar="K")
    parser.add_argument(
        "--freeze-after-tokens", type=int, metavar="K", help="answer nothing any more, not even /health"
    )
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--fork", action="store_true", help="a grandchild in a session of its own that holds stdout")
    parser.add_argument("--worker", action="store_true", help="a grandchild in the same session")
    parser.add_argument("--hang-health", action="store_true", help="answer /health once, then never again")
    parser.add_argument("--garbage", action="store_true", help="events that are not JSON")
    parser.add_argument("--half-sse", action="store_true", help="close the connection in the middle of an event")
    parser.add_argument("--error-500", action="store_true", help="answer every completion with 500")
    parser.add_argument(
        "--log-flood", type=int, metavar="MIB", default=0, help="print that much, one line of 10 MiB too"
    )
    parser.add_argument("--token-delay", type=float, default=0.0, metavar="S")
    return parser.parse_args()


class Engine:
    """What the server and its vices share."""

    def __init__(self, vices: argparse.Namespace) -> None:
        self.vices = vices
        self.running = 0
        self.tokens = 0
        self.health_checks = 0

    async def serve(self) -> None:
        server = await asyncio.start_unix_server(self.connection, self.vices.socket)
        say("ready")
        async with server:
            await server.serve_forever()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request for each connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split(" ", 2)
            length = next(
                (int(x.split(":")[1]) for x in head.lower().split("\r\n") if x.startswith("content-length:")), 0
            )
            body = json.loads(await reader.readexactly(length)) if length else {}
            await self.answer(method, path, body, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def answer(
        self, method: str, path: str, body: dict, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if path == "/health":
            await self.health(writer)
        elif path == "/metrics":
            text = f"fake_requests_running {self.running}\nfake_tokens_total {self.tokens}\n"
            await whole(writer, 200, text.encode(), "text/plain; version=0.0.4")
        elif method == "POST" and path in {"/v1/chat/completions", "/v1/completions"}:
            self.running += 1
            try:
                await self.complete(path.endswith("chat/completions"), body, reader, writer)
            finally:
                self.running -= 1
        else:
            await whole_json(writer, 404, error(f"no route {method} {path}", 404))

    async def health(self, writer: asyncio.StreamWriter) -> None:
        self.health_checks += 1
        if self.vices.hang_health and self.health_checks > 1:
            await asyncio.Event().wait()
        status = 503 if self.vices.never_ready else 200
        await whole_json(writer, status, {"status": "loading model" if status == 503 else "ok"})

    async def complete(
        self, chat: bool, body: dict, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.vices.error_500:
            await whole_json(writer, 500, error("the fake engine was told to fail", 500))
            return
        total = body.get("words") or len(WORDS)
        words = list(itertools.islice(itertools.cycle(WORDS), min(body.get("max_tokens") or total, total)))
        finish = "length" if body.get("max_tokens") and len(words) == body["max_tokens"] else "stop"
        prompt = len(json.dumps(body.get("messages") or body.get("prompt") or "").split())
        usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
        if body.get("stream"):
            await self.stream(chat, words, (finish, usage), reader, writer)
            return
        for _ in words:
            await self.token(reader)
        text = " ".join(words)
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        await whole_json(writer, 200, envelope(chat, [{"index": 0, **choice, "finish_reason": finish}], usage))

    async def stream(
        self,
        chat: bool,
        words: list[str],
        last: tuple[str, dict],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """`last` is the reason for the end, and the usage."""
        await send(writer, b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        if chat:
            await event(writer, envelope(chat, [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]))
        for number, word in enumerate(words):
            await self.token(reader)
            if self.vices.garbage:
                await chunk(writer, GARBAGE)
                continue
            if self.vices.half_sse and number == 2:
                await chunk(writer, b'data: {"choices": [{"del')
                writer.transport.abort()
                return
            text = word if number == 0 else f" {word}"
            part = {"delta": {"content": text}} if chat else {"text": text}
            await event(writer, envelope(chat, [{"index": 0, **part, "finish_reason": None}]))
        part = {"delta": {}} if chat else {"text": ""}
        await event(writer, envelope(chat, [{"index": 0, **part, "finish_reason": last[0]}]))
        await event(writer, envelope(chat, [], last[1]))
        await chunk(writer, b"data: [DONE]\n\n")
        await send(writer, b"0\r\n\r\n")

    async def token(self, reader: asyncio.StreamReader) -> None:
        """Make one token, or show a vice instead; raises ConnectionError when the client has hung up."""
        if self.vices.token_delay:
            await asyncio.sleep(self.vices.token_delay)
        if reader.at_eof():
            raise ConnectionResetError("the client hung up")
        made, self.tokens = self.tokens, self.tokens + 1
        if made == self.vices.exit_after_tokens:
            os._exit(0)
        if made == self.vices.segv_after_tokens:
            os.kill(os.getpid(), signal.SIGSEGV)
        if made == self.vices.freeze_after_tokens:
            time.sleep(3600)


# -- HTTP ------------------------------------------------------------------------------------------------------------


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def whole(writer: asyncio.StreamWriter, status: int, body: bytes, kind: str) -> None:
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    await send(writer, f"{head}connection: close\r\n\r\n".encode() + body)


async def whole_json(writer: asyncio.StreamWriter, status: int, body: dict) -> None:
    await whole(writer, status, json.dumps(body).encode(), "application/json")


async def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    await send(writer, b"%x\r\n%b\r\n" % (len(data), data))


async def event(writer: asyncio.StreamWriter, body: dict) -> None:
    await chunk(writer, b"data: " + json.dumps(body).encode() + b"\n\n")


def envelope(chat: bool, choices: list[dict], usage: dict | None = None) -> dict:
    kind = "chat.completion" if chat else "text_completion"
    return {"id": "fake-1", "object": kind, "model": "fake", "choices": choices, "usage": usage}


def error(message: str, status: int) -> dict:
    return {"error": {"message": message, "type": "FakeError", "param": None, "code": status}}


# -- vices before and beside the server ------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def grandchild(*, own_session: bool) -> None:
    if os.fork() == 0:
        if own_session:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
        os._exit(0)


def flood(mebibytes: int) -> None:
    say("flood " + "x" * (10 << 20))
    for _ in range(max(0, mebibytes - 10)):
        os.write(1, b"".join(b"flood line %08d %b\n" % (n, b"y" * 100) for n in range(8192)))
    say("flood over")


def main() -> None:
    vices = arguments()
    if vices.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if vices.fork:
        grandchild(own_session=True)
    if vices.worker:
        grandchild(own_session=False)
    for phase in ("weights", "compiling", "warming"):
        say(f"phase {phase}")
        time.sleep(vices.slow / 3)
    if vices.exit is not None:
        say(f"error: the fake engine was told to exit with {vices.exit}")
        sys.exit(vices.exit)
    if vices.log_flood:
        threading.Thread(target=flood, args=(vices.log_flood,), daemon=True).start()
    asyncio.run(Engine(vices).serve())


if __name__ == "__main__":
    main()
