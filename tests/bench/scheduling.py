"""`python -m tests.bench.scheduling [ROUNDS]`: what others cost a client; seven minutes.

Three questions, each answered in rounds (rounds.py).  How much later does the first token of a hot model come while
other models load and evict each other beside it, on llama.cpp?  And that of a light client, while a heavy one fills the
queue of the same model: on an engine that makes tokens at an even pace however many it makes at once, as a GPU does, so
that all that can be late is ours; and on llama.cpp, whose steps take longer the more it makes at once.  There it asks a
prompt that is in the cache, so that one step is all that it waits for, and questions of twenty numbers, all new.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp

from hyperllamactl.client import Client
from hyperllamactl.protocol.instances import InstanceRow, Instances, Ps
from tests.bench.crowd import crowd
from tests.bench.rounds import rounds, show
from tests.daemon import Daemon, daemon
from tests.faults.house import fakes
from tests.real.conftest import demo_model

ROUNDS = 7
HEAVY = 500  # requests that the heavy client has open all the time
COMING = 20  # of those at most are being served or on their way, once they have all come
LONG = 100  # tokens of its answers
EVEN = ("--token-delay", "0.01", "--words", "100")  # of an engine that answers any number of requests at the same pace
PAUSE = 0.01  # seconds between two requests of the one that is measured
ASKING = 0.1  # of one that asks questions: it would keep the engine from everybody else
CACHED = "1 2"
NUMBERS = 20  # of a question


def rows(running: Daemon) -> list[InstanceRow]:
    """As `hyperllamactl ps` shows them, without a process for the asking."""
    client = Client([str(running.root / "run/admin.sock")], warn=print)
    return list(client.call(Ps(), Instances).instances)


async def until(running: Daemon, what: Callable[[list[InstanceRow]], bool]) -> None:
    while not what(await asyncio.to_thread(rows, running)):
        await asyncio.sleep(0.1)


def waiting(found: list[InstanceRow]) -> int:
    return sum(row.waiting for row in found)


def rest(found: list[InstanceRow]) -> bool:
    return all(row.state == "ready" and not row.running and not row.waiting for row in found)


def cached() -> str:
    return CACHED


def question() -> str:
    """One that no cache knows, not even its beginning."""
    return " ".join(str(random.randrange(100)) for _ in range(NUMBERS))


@contextlib.asynccontextmanager
async def first_tokens(
    running: Daemon, model: str, prompt: Callable[[], str] = cached
) -> AsyncIterator[Callable[[float], Awaitable[list[float]]]]:
    """What measures, for so many seconds, the times to first token of requests one after the other."""
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.1", 0))
    options = {"num_predict": 1, "temperature": 0}

    async with aiohttp.ClientSession(running.url, connector=connector) as session:

        async def measure(seconds: float) -> list[float]:
            found, end = [], time.perf_counter() + seconds
            while (began := time.perf_counter()) < end:
                body = {"model": model, "prompt": prompt(), "options": options}
                async with session.post("/api/generate", json=body) as reply:
                    assert reply.status == 200, await reply.text()
                    await reply.content.readline()
                    found.append(time.perf_counter() - began)
                    await reply.read()
                await asyncio.sleep(PAUSE if prompt is cached else ASKING)
            return found

        await measure(1.0)  # the first ones load it, and warm everything up
        yield measure


async def hot_model(running: Daemon, count: int) -> None:
    """Two models that have room for one take turns beside it."""
    loads = 0
    async with (
        first_tokens(running, "hot") as measure,
        crowd(running.url, "127.0.0.2", 1, 1, "other-1", "other-2") as beside,
    ):

        @contextlib.asynccontextmanager
        async def others() -> AsyncIterator[None]:
            nonlocal loads
            await beside.go()
            await until(running, lambda found: len(found) > 1)
            yield
            loads += await beside.halt()
            await until(running, rest)

        show("hot model", await rounds(count, measure, others, alone=4.0, beside=6.0))
    print(f"{'':<13} {loads} loads beside it")


async def light_client(running: Daemon, count: int, label: str, prompt: Callable[[], str] = cached) -> None:
    """Measured once the whole crowd has come: its arrival is a burst of parsing, not a queue."""
    answers = 0
    async with (
        first_tokens(running, "shared", prompt) as measure,
        crowd(running.url, "127.0.0.4", HEAVY, LONG, "shared") as heavy,
    ):

        @contextlib.asynccontextmanager
        async def others() -> AsyncIterator[None]:
            nonlocal answers
            await heavy.go()
            await until(running, lambda found: waiting(found) > HEAVY - COMING)
            yield
            answers += await heavy.halt()
            await until(running, rest)

        async with others():
            await measure(1.0)  # an engine's first steps with several answers in them take longer, once
        answers = 0
        show(label, await rounds(count, measure, others, alone=3.0, beside=5.0))
    print(f"{'':<13} {answers} answers of {LONG} tokens to the heavy one")


def main(count: int) -> None:
    plain = {**demo_model("llama_cpp"), "parallel": 4, "args": ["--threads", "1"]}
    names = ("hot", "shared", "other-1", "other-2")
    models = {name: {**plain, "context": 2048 + 1024 * n} for n, name in enumerate(names)}
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print("time to first token  alone  beside ms  beside/alone          alone/alone")
    with daemon(models, main='[fleet]\nmax_loaded_models = 2\nkeep_alive = "-1"\npinned = ["hot"]\n') as running:
        asyncio.run(hot_model(running, count))
    crowded: dict[str, str] = {"main": "[fleet]\nmax_queue = 600\n", "server": "connections_per_address = 1000\n"}
    with (
        tempfile.TemporaryDirectory() as scratch,
        fakes(Path(scratch), {"shared": EVEN}, parallel=4, **crowded) as running,
    ):
        asyncio.run(light_client(running, count, "light, even"))
    with daemon({"shared": models["shared"]}, **crowded) as running:
        asyncio.run(light_client(running, count, "light, llama"))
        asyncio.run(light_client(running, count, "light, asks", question))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
