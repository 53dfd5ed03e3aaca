"""`python -m tests.bench.scheduling`: what others cost a client, on real llama.cpp engines.

Two ratios, each within one run: the time to first token of a hot model while others load and evict each other beside
it, and that of a light client while a heavy one fills the queue of the same model.  The models are tiny, so that the
times are those of scheduling and not of computing; the processors are shared all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from tests.daemon import Daemon, daemon
from tests.store.tiny_llama import TinyLlama

ROUNDS = 200  # requests of which times are reported
HEAVY = 500  # requests that the heavy client has open all the time
LONG = {"num_predict": 100, "temperature": 0}
SHORT = {"num_predict": 1, "temperature": 0}


@contextlib.asynccontextmanager
async def client(running: Daemon, address: str) -> AsyncIterator[aiohttp.ClientSession]:
    """One whose requests come from that address: by it clients without a key are told apart."""
    connector = aiohttp.TCPConnector(local_addr=(address, 0), limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(running.url, connector=connector, timeout=timeout) as session:
        yield session


async def generate(session: aiohttp.ClientSession, model: str, options: dict[str, int]) -> float:
    """Seconds to the first line of a streamed answer, which is read to its end."""
    began = time.perf_counter()
    async with session.post("/api/generate", json={"model": model, "prompt": "1 2", "options": options}) as reply:
        assert reply.status == 200, await reply.text()
        await reply.content.readline()
        first = time.perf_counter() - began
        await reply.read()
    return first


async def times(session: aiohttp.ClientSession, model: str) -> list[float]:
    """Of requests one after the other, with a pause in which the model has nothing to do."""
    found = []
    for _ in range(ROUNDS):
        found.append(await generate(session, model, SHORT))
        await asyncio.sleep(0.02)
    return sorted(found)


async def others(session: aiohttp.ClientSession) -> None:
    """Two models that have room for one take turns for ever."""
    while True:
        for name in ("other-1", "other-2"):
            await generate(session, name, SHORT)


async def hot_model(running: Daemon) -> tuple[list[float], list[float]]:
    async with client(running, "127.0.0.1") as hot, client(running, "127.0.0.2") as beside:
        await generate(hot, "hot", SHORT)
        alone = await times(hot, "hot")
        loading = asyncio.create_task(others(beside))
        disturbed = await times(hot, "hot")
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading
    return alone, disturbed


async def keep_asking(session: aiohttp.ClientSession) -> None:
    while True:
        await generate(session, "shared", LONG)


async def light_client(running: Daemon) -> tuple[list[float], list[float]]:
    """Measured once the crowd has come: its arrival is a burst of parsing, not a queue."""
    async with client(running, "127.0.0.3") as light, client(running, "127.0.0.4") as heavy:
        await generate(light, "shared", SHORT)
        alone = await times(light, "shared")
        crowd = [asyncio.create_task(keep_asking(heavy)) for _ in range(HEAVY)]
        while (await asyncio.to_thread(running.row, "shared"))["waiting"] < HEAVY * 9 // 10:
            await asyncio.sleep(0.2)
        crowded = await times(light, "shared")
        for one in crowd:
            one.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
    return alone, crowded


def show(what: str, alone: list[float], beside: list[float]) -> None:
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        before, after = alone[int(len(alone) * share)], beside[int(len(beside) * share)]
        print(f"{what:<14} {name}  {before * 1e3:7.1f} ms  {after * 1e3:7.1f} ms  {after / before:5.2f}")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="sched-") as directory:
        path = Path(directory, "tiny.gguf")
        path.write_bytes(TinyLlama().gguf(llama__context_length=1 << 20))
        plain = {"path": str(path), "engine": "llama_cpp", "parallel": 4, "args": ["--threads", "1"]}
        names = ("hot", "shared", "other-1", "other-2")
        models = {name: {**plain, "context": 2048 + 1024 * n} for n, name in enumerate(names)}
        with daemon(models, main='[fleet]\nmax_loaded_models = 2\nkeep_alive = "-1"\npinned = ["hot"]\n') as running:
            found = asyncio.run(hot_model(running))
            print(f"{running.ctl('events', '-n', '1000').stdout.count(' evicted ')} evictions meanwhile")
        with daemon(models, main="[fleet]\nmax_queue = 600\n") as running:
            shared = asyncio.run(light_client(running))
    print("time to first token      alone     beside  ratio")
    show("hot model", *found)
    show("light client", *shared)


if __name__ == "__main__":
    main()
