"""`python -m tests.bench.swap PATH PATH [--swaps 20]`: two models in turn on a device that holds one of them awake.

Each request goes to the model that is not there, through /api/generate: seconds to the first token are what a swap
costs a client.  Beside it, in the same run: the engines' own swap (sleep one, wake the other, first token, asked of
them directly while the daemon lets them be), and what a reload costs when nothing may sleep.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

import aiohttp

from tests.bench import serving
from tests.bench.streams import Way, ask, percentile
from tests.daemon import Daemon

NAMES = ("a", "b")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs=2)
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--bare", type=int, default=10, help="swaps of the engines themselves; 0 = none")
    parser.add_argument("--reloads", type=int, default=2, help="loads from nothing; 0 = none")
    parser.add_argument("--args", default="", help="arguments for the engine, separated by spaces")
    parser.add_argument("--main", default="", help="content of hyperllamad.toml")
    parser.add_argument("--table", default="", help="content of the engine's file in engines.d")
    parser.add_argument("--log", default="", help="write the daemon's and the engines' logs below this directory")
    return parser.parse_args()


def first_token(way: Way) -> float:
    """Seconds from the request to the first token of a short answer."""

    async def once() -> float:
        async with way.session() as session:
            return (await ask(session, way, 16, 4)).first

    return asyncio.run(once())


def spread(seconds: list[float]) -> dict[str, Any]:
    return {
        "times": len(seconds),
        "p50_s": round(statistics.median(seconds), 3),
        "p99_s": round(percentile(seconds, 0.99), 3),
        "least_s": round(min(seconds), 3),
        "most_s": round(max(seconds), 3),
    }


def swaps(running: Daemon, count: int) -> dict[str, Any]:
    """Requests in turn; every one finds the other model in its place."""
    to = {name: Way(name, running.url, "/api/generate", name) for name in NAMES}
    for name in NAMES:
        first_token(to[name])
    return spread([first_token(to[NAMES[number % 2]]) for number in range(count)])


async def _post(way: Way, path: str) -> None:
    async with (
        way.session() as session,
        session.post(way.base + path, timeout=aiohttp.ClientTimeout(total=120)) as reply,
    ):
        assert reply.status == 200, await reply.text()


def bare_swaps(running: Daemon, count: int) -> dict[str, Any]:
    """The engines' own: the daemon sees nothing of it, so each model must be left as it was found."""
    first_token(Way("b", running.url, "/api/generate", "b"))  # now b is awake and a sleeps
    engines = {name: serving.ways(running, name)[0] for name in NAMES}
    found = []
    for number in range(2 * ((count + 1) // 2)):
        leaves, comes = engines[NAMES[(number + 1) % 2]], engines[NAMES[number % 2]]
        began = time.perf_counter()
        asyncio.run(_post(leaves, "/sleep?level=1"))
        asyncio.run(_post(comes, "/wake_up"))
        woken = time.perf_counter() - began
        found.append(woken + first_token(comes))
    return spread(found)


def reloads(running: Daemon, count: int) -> list[dict[str, Any]]:
    """Loads from nothing, by a request: seconds to its first token, and where they went."""
    found = []
    for number in range(count):
        for name in NAMES:
            if any(row["name"] == f"{name}:latest" for row in running.ps()):
                serving.unload(running, name)
        name = NAMES[number % 2]
        before = serving.expected(running, name)
        seconds = first_token(Way("", running.url, "/api/generate", name))
        shown = {"seconds": round(seconds, 2), "phases": running.row(name)["phases"]}
        found.append(shown | serving.memory(running, name, before))
    return found


def main() -> None:
    stated = arguments()
    shared = {"engine": stated.engine, "context": 2048, "args": stated.args.split()}
    models = {name: {"path": path, **shared} for name, path in zip(NAMES, stated.paths, strict=True)}
    with serving.serving(models, main=stated.main, engine=stated.engine, table=stated.table) as running:
        for name in NAMES:
            before = serving.expected(running, name)
            seconds = first_token(Way(name, running.url, "/api/generate", name))
            rows = {row["name"]: (row["state"], row["phases"]) for row in running.ps()}
            shown = {"seconds": round(seconds, 2), "then": rows, **serving.memory(running, name, before)}
            serving.report(f"first load of {name}", [shown])
        serving.report("through the daemon", [swaps(running, stated.swaps)])
        if stated.bare:
            serving.report("the engines themselves", [bare_swaps(running, stated.bare)])
        serving.report("through the daemon, again", [swaps(running, stated.swaps)])
        if stated.reloads:
            serving.report("reload", reloads(running, stated.reloads))
        if stated.log:
            serving.keep_logs(running, NAMES, stated.log)


if __name__ == "__main__":
    main()
