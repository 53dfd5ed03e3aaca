"""`python -m tests.bench.phases MODEL_PATH [--engine vllm] [--requests 60]`: where the time to the first token goes.

One request at a time, the ways in turn, so that whatever drifts drifts for all of them: the engine's completion route
and the daemon's /api/generate, which asks it, then the engine's chat route and the daemon's /v1/chat/completions.  For
the daemon's ways the moments that tests/bench/phased.py noted are told apart: milliseconds, medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.bench import phased, serving
from tests.bench.streams import Answer, Way, ask, percentile

WORDS = 256
PARTS = {  # what lies between two moments of a request; "" = the client's begin and its first bytes
    "client to daemon": ("", "arrived"),
    "body read": ("arrived", "read"),
    "parsed": ("read", "wanted"),
    "granted": ("wanted", "granted"),
    "body for the engine": ("granted", "asking"),
    "connected and sent": ("asking", "sent"),
    "engine: head": ("sent", "head"),
    "engine: first chunk": ("head", "first"),
    "translated and written": ("first", "told"),
    "daemon to client": ("told", ""),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--requests", type=int, default=60, help="of each way")
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two requests")
    parser.add_argument("--args", default="", help="arguments for the engine, separated by spaces")
    parser.add_argument("--table", default="", help="content of the engine's file in engines.d")
    return parser.parse_args()


def in_turn(ways: tuple[Way, ...], requests: int, tokens: int, pause: float) -> dict[str, list[Answer]]:
    """Answers by way; each way keeps its session, as a client does."""
    found: dict[str, list[Answer]] = {way.title: [] for way in ways}

    async def run() -> None:
        async with AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(way.session()) for way in ways]
            for _ in range(requests):
                for way, session in zip(ways, sessions, strict=True):
                    await asyncio.sleep(pause)
                    found[way.title].append(await ask(session, way, WORDS, tokens))

    asyncio.run(run())
    return found


def row(title: str, answers: list[Answer], other: list[Answer]) -> dict[str, Any]:
    """First tokens of a way, beside those of the engine's own in the same turns."""
    firsts = [answer.first * 1e3 for answer in answers]
    added = [(one.first - two.first) * 1e3 for one, two in zip(answers, other, strict=True)]
    return {
        "way": title,
        "requests": len(firsts),
        "least_ms": round(min(firsts), 2),
        "p50_ms": round(statistics.median(firsts), 2),
        "p90_ms": round(percentile(firsts, 0.9), 2),
        "added_p50_ms": round(statistics.median(firsts) - statistics.median(one.first * 1e3 for one in other), 2),
        "added_in_turn_p50_ms": round(statistics.median(added), 2),
    }


def parts(answers: list[Answer], marks: list[dict[str, int]]) -> dict[str, float]:
    """Median milliseconds of each part.  `marks` are of the same requests, in their order."""
    found: dict[str, list[float]] = {name: [] for name in PARTS}
    for answer, marked in zip(answers, marks, strict=True):
        for name, (begin, end) in PARTS.items():
            first = marked[begin] / 1e9 if begin else answer.began
            last = marked[end] / 1e9 if end else answer.began + answer.first
            found[name].append((last - first) * 1e3)
    return {name: round(statistics.median(values), 3) for name, values in found.items()}


def lines(path: Path, count: int) -> list[dict[str, int]]:
    """The last `count` requests, once they are written down: that is after their clients have gone on."""
    deadline = time.monotonic() + 5
    while len(found := path.read_text().splitlines()) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return [json.loads(line) for line in found]


def measure(ways: tuple[Way, ...], noted: Path, stated: argparse.Namespace) -> None:
    """`ways`: an engine's own and the daemon's by turns."""
    in_turn(ways, 5, stated.tokens, 0.0)  # whatever is compiled or filled at first
    before = len(lines(noted, 5 * len(ways) // 2))
    found = in_turn(ways, stated.requests, stated.tokens, stated.pause)
    marks = lines(noted, before + stated.requests * len(ways) // 2)[before:]
    rows = []
    for own, ours, which in zip(ways[::2], ways[1::2], range(len(ways) // 2), strict=True):
        engine, daemon = found[own.title], found[ours.title]
        rows += [row(own.title, engine, engine), row(ours.title, daemon, engine)]
        rows[-1]["parts_ms"] = parts(daemon, marks[which :: len(ways) // 2])
    serving.report(f"first tokens, in turn, {stated.pause} s between", rows)


def main() -> None:
    stated = arguments()
    model = {"path": stated.path, "engine": stated.engine, "context": 2048, "args": stated.args.split()}
    noted = Path(tempfile.mkstemp(prefix="hl-phases-")[1])
    environ = {phased.VARIABLE: str(noted)}
    try:
        with serving.serving(
            {"m": model}, engine=stated.engine, table=stated.table, module="tests.bench.phased", environ=environ
        ) as running:
            serving.load(running, "m")
            serving.settle(running, "m")
            measure(serving.pairs(running, "m"), noted, stated)
    finally:
        noted.unlink()


if __name__ == "__main__":
    main()
