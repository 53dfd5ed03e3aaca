"""`python -m tests.bench.first [REQUESTS] [PAUSE]`: what each layer adds to the time to first token.

Two baselines, each with what stands before it, one request after the other and all ways in turn, with a pause between
them in which the processes go cold: a protocol that answers at once, before it Hypercorn and Quart (least.py); and the
tests' fake engine, before it a relay of bytes, the plain relay and the daemon.  Milliseconds; what is added is the
median of the differences to the baseline's answer in the same turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.relay import listens
from tests.bench.relay import running as process
from tests.bench.streams import Way, ask
from tests.daemon import eventually, free_port
from tests.faults.house import chat, fakes, row

REQUESTS, PAUSE = 300, 0.02
WARM = 20  # requests that are not counted
WORDS, TOKENS = 256, 4  # of a prompt, of an answer


async def measure(ways: list[Way], requests: int, pause: float) -> dict[str, list[float]]:
    """Milliseconds to the first token by title, in the order of the turns."""
    found: dict[str, list[float]] = {way.title: [] for way in ways}
    async with contextlib.AsyncExitStack() as stack:
        sessions = {way.title: await stack.enter_async_context(way.session()) for way in ways}
        for number in range(WARM + requests):
            for way in random.sample(ways, len(ways)):
                await asyncio.sleep(pause)
                answer = await ask(sessions[way.title], way, WORDS, TOKENS)
                if number >= WARM:
                    found[way.title].append(answer.first * 1e3)
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
        before_nothing = [Way(kind, urls[kind], "/api/generate", "m") for kind in ("protocol", "hypercorn", "quart")]
        before_an_engine = [
            Way("engine", "http://engine", "/v1/chat/completions", "m", engine),
            Way("bytes", urls["bytes"], "/v1/chat/completions", "m", kept=False),
            Way("plain relay", urls["plain"], "/api/chat", "m"),
            Way("daemon", running.url, "/api/chat", "m"),
        ]
        found = asyncio.run(measure(before_nothing + before_an_engine, requests, pause))
    print(f"{requests} requests of each, {pause * 1e3:g} ms between two")
    for ways in (before_nothing, before_an_engine):
        for way in ways:
            added = statistics.median(a - b for a, b in zip(found[way.title], found[ways[0].title], strict=True))
            print(f"{way.title:12}  p50 {statistics.median(found[way.title]):6.2f}  added {added:6.2f}")


if __name__ == "__main__":
    stated = [float(each) for each in sys.argv[1:]]
    main(*[int(stated[0]) if stated else REQUESTS, stated[1] if len(stated) > 1 else PAUSE])
