"""`python -m tests.bench.first [REQUESTS] [PAUSE]`: what each layer adds to the time to first token.

Two baselines, each with what stands before it, one request after the other and all ways in turn, with a pause between
them in which the processes go cold: a protocol that answers at once, before it Hypercorn and Quart (least.py); and the
tests' fake engine, before it a relay of bytes, the plain relay and the daemon.  Milliseconds; what is added is the
median of the differences to the baseline's answer in the same turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.bench.relay import listens
from tests.bench.relay import running as process
from tests.bench.streams import prompt
from tests.daemon import eventually, free_port
from tests.faults.house import chat, fakes, row

REQUESTS, PAUSE = 300, 0.02
WARM = 20  # requests that are not counted
WORDS = 256  # of a prompt
TEXT = re.compile(rb'"(?:content|response)": ?"(?!")')


@dataclass(frozen=True)
class Way:
    title: str
    url: str
    baseline: str
    socket: str = ""
    kept: bool = True  # its connection, from one request to the next

    def session(self) -> aiohttp.ClientSession:
        if self.socket:
            return aiohttp.ClientSession(connector=aiohttp.UnixConnector(self.socket, force_close=True))
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=not self.kept))


def body(url: str) -> bytes:
    """A question of its own, as the route that is asked wants it."""
    asked = {"model": "m", "messages": [{"role": "user", "content": prompt(WORDS)}]}
    more = {"options": {"num_predict": 4}} if "/api/" in url else {"max_tokens": 4, "stream": True}
    return json.dumps(asked | more).encode()


async def first_token(session: aiohttp.ClientSession, url: str) -> float:
    """Milliseconds to the first line with text in it; the rest is read, too."""
    asked, found = body(url), 0.0
    began = time.perf_counter()
    async with session.post(url, data=asked, headers={"Content-Type": "application/json"}) as reply:
        assert reply.status == 200, await reply.text()
        async for line in reply.content:
            if not found and TEXT.search(line):
                found = time.perf_counter() - began
    assert found, f"{url} answered without a text"
    return found * 1e3


async def measure(ways: list[Way], requests: int, pause: float) -> dict[str, list[float]]:
    """By title, in the order of the turns."""
    found: dict[str, list[float]] = {way.title: [] for way in ways}
    async with contextlib.AsyncExitStack() as stack:
        sessions = {way.title: await stack.enter_async_context(way.session()) for way in ways}
        for number in range(WARM + requests):
            for way in random.sample(ways, len(ways)):
                await asyncio.sleep(pause)
                took = await first_token(sessions[way.title], way.url)
                if number >= WARM:
                    found[way.title].append(took)
    return found


def main(requests: int, pause: float) -> None:
    ports = {kind: free_port() for kind in ("protocol", "hypercorn", "quart", "bytes", "plain")}
    urls = {kind: f"http://127.0.0.1:{port}" for kind, port in ports.items()}
    with (
        tempfile.TemporaryDirectory() as scratch,
        fakes(Path(scratch), {"m": ("--words", "4")}) as running,
        contextlib.ExitStack() as stack,
    ):
        assert "".join(chat(running, "m", 4))  # loads it
        loaded = row(running, "m")
        assert loaded is not None
        engine = str(Path(f"/proc/{loaded.pid}/cwd").readlink().parent / "e.sock")
        for kind in ("protocol", "hypercorn", "quart", "bytes"):
            stack.enter_context(process("tests.bench.least", kind, str(ports[kind]), engine))
        stack.enter_context(process("tests.bench.plain_relay", engine, str(ports["plain"])))
        eventually(lambda: all(map(listens, ports.values())), within=20, what="all of them listen")
        ways = [
            Way("protocol", f"{urls['protocol']}/api/generate", "protocol"),
            Way("hypercorn", f"{urls['hypercorn']}/api/generate", "protocol"),
            Way("quart", f"{urls['quart']}/api/generate", "protocol"),
            Way("engine", "http://engine/v1/chat/completions", "engine", engine),
            Way("bytes", f"{urls['bytes']}/v1/chat/completions", "engine", kept=False),
            Way("plain relay", f"{urls['plain']}/api/chat", "engine"),
            Way("daemon", f"{running.url}/api/chat", "engine"),
        ]
        found = asyncio.run(measure(ways, requests, pause))
    print(f"{requests} requests of each, {pause * 1e3:g} ms between two")
    for way in ways:
        added = statistics.median(a - b for a, b in zip(found[way.title], found[way.baseline], strict=True))
        print(f"{way.title:12}  p50 {statistics.median(found[way.title]):6.2f}  over {way.baseline:9} {added:6.2f}")


if __name__ == "__main__":
    stated = [float(each) for each in sys.argv[1:]]
    main(*[int(stated[0]) if stated else REQUESTS, stated[1] if len(stated) > 1 else PAUSE])
