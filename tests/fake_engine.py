"""A real child that speaks the engines' HTTP over a Unix socket, with every vice an engine has shown, by switch.

Standard library only, started as `python -I -S fake_engine.py --socket PATH [vices]`; listens after about 0.1 s.
It counts: the words of an answer are always "one two three ...", ten of them unless the request's `max_tokens` says
fewer or its own field `words` says otherwise.  Word n is the token FIRST_ID + n; a prompt of token ids that ends in
such ones is counted on from there, which is how an answer is continued.  A vice "after K tokens" shows once K tokens
were made, whoever asked for them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
REASONS = {200: "OK", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}
FIRST_ID = 1000
GARBAGE = b'data: {"choices": [{"delta": \xff\xfe <not json>\n\n'


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    loading = parser.add_argument_group("while it loads")
    loading.add_argument("--slow", type=float, default=0.0, metavar="S", help="take S seconds to load")
    loading.add_argument("--busy-load", action="store_true", help="compute all that time, as a compiler does")
    loading.add_argument("--never-ready", action="store_true", help="listen, and answer /health with 503 for ever")
    loading.add_argument("--exit", type=int, metavar="N", help="print an error and exit with N while loading")
    loading.add_argument("--port-held", action="store_true", help="find its socket taken")
    loading.add_argument("--fork-and-die", action="store_true", help="leave a grandchild and die while loading")
    dying = parser.add_argument_group("while it answers")
    dying.add_argument("--exit-after-tokens", type=int, metavar="K", help="exit with 0, as vLLM does when it crashes")
    dying.add_argument("--segv-after-tokens", type=int, metavar="K")
    dying.add_argument("--freeze-after-tokens", type=int, metavar="K", help="answer nothing any more, not even /health")
    dying.add_argument("--stall-after-tokens", type=int, metavar="K", help="make no token any more; /health says 200")
    dying.add_argument("--spin-after-tokens", type=int, metavar="K", help="the same, and compute for ever")
    dying.add_argument("--garbage", action="store_true", help="events that are not JSON")
    dying.add_argument("--half-sse", action="store_true", help="close the connection in the middle of an event")
    dying.add_argument("--error-500", action="store_true", help="answer every completion with 500")
    dying.add_argument(
        "--error-500-after", type=int, metavar="R", help="answer everything with 500 after R completions"
    )
    dying.add_argument(
        "--slow-reader", type=float, default=0.0, metavar="S", help="S seconds for each KiB of a request"
    )
    dying.add_argument("--leak", type=int, default=0, metavar="MIB", help="with every token")
    dying.add_argument("--words", type=int, default=len(WORDS), metavar="N", help="an answer has, if nobody says")
    dying.add_argument("--token-delay", type=float, default=0.0, metavar="S")
    dying.add_argument("--prefill", type=float, default=0.0, metavar="S", help="S busy seconds before the first token")
    dying.add_argument(
        "--attention",
        type=float,
        default=0.0,
        metavar="S",
        help="the same for 100 kB, four times that for 200; in turn",
    )
    dying.add_argument("--pings", action="store_true", help="comments in the stream while no token comes")
    beside = parser.add_argument_group("besides")
    beside.add_argument("--ignore-term", action="store_true")
    beside.add_argument("--fork", action="store_true", help="a grandchild in a session of its own that holds stdout")
    beside.add_argument("--worker", action="store_true", help="a grandchild in the same session")
    beside.add_argument("--hang-health", action="store_true", help="answer /health five times, then never again")
    beside.add_argument(
        "--log-flood", type=int, metavar="MIB", default=0, help="print that much, one line of 10 MiB too"
    )
    beside.add_argument("--lying-metrics", action="store_true", help="nothing runs, and tokens go backwards")
    beside.add_argument("--sleeps", action="store_true", help="nothing here: the tests' engine may send it to sleep")
    beside.add_argument("--refuse-sleep", action="store_true", help="answer /sleep with 500")
    beside.add_argument("--refuse-wake", action="store_true", help="sleep, but answer /wake_up with 500")
    beside.add_argument("--wrong-weights", action="store_true", help="count backwards after it slept")
    beside.add_argument("--wait", metavar="SOCKET", help="wait there for the other arguments first")
    if (stated := parser.parse_args()).wait:
        return parser.parse_args(orders(stated.wait))
    return stated


def orders(path: str) -> list[str]:
    """As launchers/vllm_serve.py takes them."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        say("waiting for orders")
        connection, _ = listener.accept()
    with connection, connection.makefile("rwb") as stream:
        told = json.loads(stream.readline())
        stream.write(b"going\n")
    os.environ.update(told["env"])
    say(f"prepared {os.getpid()}, LATE={os.environ.get('LATE')}")
    return told["argv"]


class Engine:
    """What the server and its vices share."""

    def __init__(self, vices: argparse.Namespace) -> None:
        self.vices = vices
        self.running = 0
        self.tokens = 0
        self.completions = 0
        self.health_checks = 0
        self.asleep = False
        self.words = WORDS
        self.reading = asyncio.Lock()
        self.leaked: list[bytes] = []

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
            body = json.loads(await self.read(reader, length)) if length else {}
            await self.answer(method, path, body, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def read(self, reader: asyncio.StreamReader, length: int) -> bytes:
        if not self.vices.slow_reader:
            return await reader.readexactly(length)
        data = b""
        while len(data) < length:
            data += await reader.readexactly(min(1024, length - len(data)))
            await asyncio.sleep(self.vices.slow_reader)
        return data

    async def answer(
        self, method: str, path: str, body: dict, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        limit = self.vices.error_500_after
        path, _, _ = path.partition("?")
        if limit is not None and self.completions >= limit:
            await whole_json(writer, 500, error("the fake engine was told to fail", 500))
        elif path == "/health":
            await self.health(writer)
        elif path == "/metrics":
            await whole(writer, 200, self.metrics().encode(), "text/plain; version=0.0.4")
        elif method == "POST" and path in {"/v1/chat/completions", "/v1/completions"}:
            self.running += 1
            self.completions += 1
            try:
                await self.complete(path.endswith("chat/completions"), body, reader, writer)
            finally:
                self.running -= 1
        elif path.partition("?")[0] in {"/sleep", "/wake_up", "/is_sleeping"}:
            await self.sleeping(path.partition("?")[0], writer)
        else:
            await whole_json(writer, 404, error(f"no route {method} {path}", 404))

    def metrics(self) -> str:
        if self.vices.lying_metrics:
            return f"fake_requests_running 0\nfake_tokens_total {-self.tokens}\nfake_tokens_total NaN\n"
        return f"fake_requests_running {self.running}\nfake_tokens_total {self.tokens}\n"

    async def sleeping(self, path: str, writer: asyncio.StreamWriter) -> None:
        """vLLM's three routes."""
        if (path == "/wake_up" and self.vices.refuse_wake) or (path == "/sleep" and self.vices.refuse_sleep):
            await whole_json(writer, 500, error("the fake engine does not want to", 500))
            return
        if path != "/is_sleeping":
            self.asleep = path == "/sleep"
        if path == "/wake_up" and self.vices.wrong_weights:
            self.words = WORDS[::-1]
        await whole_json(writer, 200, {"is_sleeping": self.asleep})

    async def health(self, writer: asyncio.StreamWriter) -> None:
        self.health_checks += 1
        if self.vices.hang_health and self.health_checks > 5:  # a busy client may miss the first ones
            await asyncio.Event().wait()
        status = 503 if self.vices.never_ready else 200
        await whole_json(writer, status, {"status": "loading model" if status == 503 else "ok"})

    async def complete(
        self, chat: bool, body: dict, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.vices.error_500 or self.asleep:
            await whole_json(writer, 500, error("the fake engine was told to fail", 500))
            return
        before = counted(body.get("prompt"))
        total = (body.get("words") or self.vices.words) - before
        made = itertools.islice(itertools.cycle(self.words), before, None)
        words = list(itertools.islice(made, max(0, min(body.get("max_tokens") or total, total))))
        finish = "length" if body.get("max_tokens") and len(words) == body["max_tokens"] else "stop"
        prompt = len(prompt_ids(body))
        usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
        if body.get("stream"):
            await self.stream(chat, body, (words, before, finish, usage), reader, writer)
            return
        await self.prefill(body, None)
        for _ in words:
            await self.token(reader)
        text = " ".join(words)
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        await whole_json(writer, 200, envelope(chat, [{"index": 0, **choice, "finish_reason": finish}], usage))

    async def stream(
        self,
        chat: bool,
        body: dict,
        answer: tuple[list[str], int, str, dict],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """`answer` is the words, the number of the first of them, the reason for the end, and the usage."""
        words, before, finish, usage = answer
        ids = body.get("return_token_ids", False)
        await send(writer, b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await self.prefill(body, writer)
        first = envelope(chat, [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}] if chat else [])
        if ids:
            first["prompt_token_ids"] = prompt_ids(body)
        if ids or chat:
            await event(writer, first)
        for number, word in enumerate(words, before):
            await self.token(reader, writer)
            if self.vices.garbage:
                await chunk(writer, GARBAGE)
                continue
            if self.vices.half_sse and number == 2:
                await chunk(writer, b'data: {"choices": [{"del')
                writer.transport.abort()
                return
            text = word if number == 0 else f" {word}"
            part = {"delta": {"content": text}} if chat else {"text": text}
            part |= {"token_ids": [FIRST_ID + number]} if ids else {}
            await event(writer, envelope(chat, [{"index": 0, **part, "finish_reason": None}]))
        part = {"delta": {}} if chat else {"text": ""}
        await event(writer, envelope(chat, [{"index": 0, **part, "finish_reason": finish}]))
        await event(writer, envelope(chat, [], usage))
        await chunk(writer, b"data: [DONE]\n\n")
        await send(writer, b"0\r\n\r\n")

    async def prefill(self, body: dict, writer: asyncio.StreamWriter | None) -> None:
        """Compute for a while, answering others meanwhile, as an engine of several processes does."""
        await self.compute(self.vices.prefill, writer)
        if self.vices.attention:
            async with self.reading:
                size = len(json.dumps(body.get("messages") or body.get("prompt") or ""))
                await self.compute(self.vices.attention * (size / 1e5) ** 2, writer)

    async def compute(self, seconds: float, writer: asyncio.StreamWriter | None) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.wait(writer, busy=True)

    async def wait(self, writer: asyncio.StreamWriter | None, *, busy: bool) -> None:
        """A tenth of a second without a token."""
        if writer is not None and self.vices.pings:
            await chunk(writer, b": ping\n\n")
        if busy:
            spin(0.05)
        await asyncio.sleep(0.05 if busy else 0.1)

    async def token(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None = None) -> None:
        """Make one token, or show a vice instead; raises ConnectionError when the client has hung up."""
        vices = self.vices
        if vices.token_delay:
            await asyncio.sleep(vices.token_delay)
        if reader.at_eof():
            raise ConnectionResetError("the client hung up")
        made, self.tokens = self.tokens, self.tokens + 1
        if vices.leak:
            self.leaked.append(os.urandom(4096) * (vices.leak << 8))
        if made == vices.exit_after_tokens:
            os._exit(0)
        if made == vices.segv_after_tokens:
            os.kill(os.getpid(), signal.SIGSEGV)
        if made == vices.freeze_after_tokens:
            time.sleep(3600)
        for limit, busy in ((vices.stall_after_tokens, False), (vices.spin_after_tokens, True)):
            while limit is not None and made >= limit:
                await self.wait(writer, busy=busy)


def counted(prompt: object) -> int:
    """How many words the prompt ends with that were made before."""
    ids = prompt if isinstance(prompt, list) else []
    return sum(1 for _ in itertools.takewhile(lambda token: token >= FIRST_ID, reversed(ids)))


def prompt_ids(body: dict) -> list[int]:
    """What its tokenizer makes of the prompt: 7 for each word."""
    prompt = body.get("messages") or body.get("prompt") or ""
    return prompt if isinstance(prompt, list) and type(prompt[0]) is int else [7] * len(json.dumps(prompt).split())


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


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def flood(mebibytes: int) -> None:
    say("flood " + "x" * (10 << 20))
    for _ in range(max(0, mebibytes - 10)):
        os.write(1, b"".join(b"flood line %08d %b\n" % (n, b"y" * 100) for n in range(8192)))
    say("flood over")


def hold_port(path: str) -> None:
    """What an engine says that finds its socket taken."""
    with socket.socket(socket.AF_UNIX) as holder, socket.socket(socket.AF_UNIX) as own:
        holder.bind(path)
        try:
            own.bind(path)
        except OSError as failure:
            say(f"error: [Errno {failure.errno}] address already in use: {path}")
            sys.exit(1)


def main() -> None:
    vices = arguments()
    if vices.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if vices.fork or vices.fork_and_die:
        grandchild(own_session=True)
    if vices.worker:
        grandchild(own_session=False)
    if vices.fork_and_die:
        os.kill(os.getpid(), signal.SIGKILL)
    for phase in ("weights", "compiling", "warming"):
        say(f"phase {phase}")
        (spin if vices.busy_load else time.sleep)(vices.slow / 3)
    if vices.port_held:
        hold_port(vices.socket)
    if vices.exit is not None:
        say(f"error: the fake engine was told to exit with {vices.exit}")
        sys.exit(vices.exit)
    if vices.log_flood:
        threading.Thread(target=flood, args=(vices.log_flood,), daemon=True).start()
    asyncio.run(Engine(vices).serve())


if __name__ == "__main__":
    main()
