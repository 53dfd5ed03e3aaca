"""`python -m tests.bench.soak PATH PATH ... [--seconds 300]`: more models than fit, under mixed load, and no error.

Clients ask for models at random, some favourites more often; every answer must be whole.  Reported: requests and errors
by kind, seconds to the first token, how often which model was loaded, slept and woke.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import time
from collections import Counter
from typing import Any

import aiohttp

from tests.bench import serving
from tests.bench.streams import FailedError, Way, ask, percentile
from tests.daemon import Daemon


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pause", type=float, default=2.0, help="mean seconds a client rests between requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--args", default="", help="arguments for the engine, separated by spaces")
    parser.add_argument("--main", default="", help="content of hyperllamad.toml")
    parser.add_argument("--table", default="", help="content of the engine's file in engines.d")
    parser.add_argument("--log", default="", help="write the daemon's and the engines' logs below this directory")
    return parser.parse_args()


class Soak:
    """What the clients saw."""

    def __init__(self, running: Daemon, names: list[str], seed: int) -> None:
        self.firsts: list[float] = []
        self.asked: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._names = names
        self._random = random.Random(seed)
        self._ways = {name: Way(name, running.url, "/api/generate", name) for name in names}

    async def run(self, clients: int, seconds: float, pause: float) -> None:
        self._end = time.monotonic() + seconds
        await asyncio.gather(*(self._client(pause) for _ in range(clients)))

    async def _client(self, pause: float) -> None:
        async with self._ways[self._names[0]].session() as session:
            favourite = self._random.choice(self._names)
            while time.monotonic() < self._end:
                name = favourite if self._random.random() < 0.7 else self._random.choice(self._names)
                if self._random.random() < 0.1:
                    favourite = self._random.choice(self._names)
                self.asked[name] += 1
                try:
                    answer = await ask(session, self._ways[name], self._random.choice((8, 64, 512)), 32)
                    self.firsts.append(answer.first)
                except (FailedError, aiohttp.ClientError, TimeoutError) as failure:
                    self.errors[re.sub(r"[\d.]+", "N", f"{type(failure).__name__}: {failure}")[:200]] += 1
                await asyncio.sleep(self._random.expovariate(1 / pause))

    def report(self) -> list[dict[str, Any]]:
        firsts = self.firsts or [0.0]
        shown = {"requests": self.asked.total(), "errors": self.errors.total(), "by_model": dict(self.asked)}
        shown |= {"ttft_p50_s": round(statistics.median(firsts), 3), "ttft_p99_s": round(percentile(firsts, 0.99), 3)}
        return [shown, *({"error": text, "times": times} for text, times in self.errors.items())]


def lives(running: Daemon) -> list[dict[str, Any]]:
    """How often what happened, from the daemon's own log."""
    counted: Counter[str] = Counter()
    for line in running.log.read_text(errors="replace").splitlines():
        if found := re.search(r"(is ready|sleeps|is awake|has ended|has failed|is ended|starts as)", line):
            counted[found[1]] += 1
    return [dict(counted)]


def main() -> None:
    stated = arguments()
    shared = {"engine": stated.engine, "context": 2048, "args": stated.args.split()}
    models = {f"m{number}": {"path": path, **shared} for number, path in enumerate(stated.paths)}
    with serving.serving(models, main=stated.main, engine=stated.engine, table=stated.table) as running:
        soak = Soak(running, list(models), stated.seed)
        asyncio.run(soak.run(stated.clients, stated.seconds, stated.pause))
        serving.report(f"{len(models)} models, {stated.clients} clients, {stated.seconds:.0f} s", soak.report())
        serving.report("lives", lives(running))
        print(json.dumps([[row["name"], row["state"], row["restarts"], row["cause"]] for row in running.ps()]))
        if stated.log:
            serving.keep_logs(running, list(models), stated.log)
        if soak.errors:
            print(running.log.read_text(errors="replace")[-6000:])


if __name__ == "__main__":
    main()
