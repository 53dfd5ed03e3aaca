"""`python -m tests.zoo [OPERATIONS [SEED]]`: ten models in memory for four, real llama.cpp engines, random operations.

A daemon is given far less memory than its ten models take together, and clients that ask, hang up and unload at
random.  The models are tiny (a machine with two cores must load hundreds of them) but their KV caches are not.  What
must hold: every request is answered, none is refused (each model fits by itself), and the engines never
hold more than they were given.  The truth is read from /proc, not from the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from hyperllamad.supervision import procfs
from tests.daemon import Daemon, daemon
from tests.store.tiny_llama import TinyLlama

MEMORY = 350  # MiB for all models together
CLIENTS = 6
TRAINED = 1 << 20  # tokens of context that the models' files claim
# Name -> context of each of two slots; what it takes grows with it.
ZOO = {f"zoo-{n}": 4096 * (2 + 3 * n) for n in range(10)}
MIB = 1 << 20


@dataclass
class Report:
    """What was seen."""

    outcomes: Counter[str] = field(default_factory=Counter)  # by HTTP status, or what the client did
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each request that was answered
    decisions: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, int] = field(default_factory=dict)  # bytes each model was seen with
    most: int = 0  # bytes all engines held together at one moment
    samples: int = 0
    errors: list[float] = field(default_factory=list)  # of what was reserved for later loads, relative
    took: float = 0.0

    @property
    def together(self) -> int:
        """Bytes the models would take if all were loaded."""
        return sum(self.sizes.values())

    def __str__(self) -> str:
        answered = sorted(self.seconds)
        lines = [
            f"operations: {dict(sorted(self.outcomes.items()))} in {self.took:.0f} s",
            f"models seen: {len(self.sizes)}, together {self.together / MIB:.0f} MiB, in {MEMORY} MiB",
            f"engines held at most {self.most / MIB:.0f} MiB ({self.samples} samples)",
            f"decisions: {dict(sorted(self.decisions.items()))}",
            f"whole answers: p50 {_percentile(answered, 50):.2f} s, p99 {_percentile(answered, 99):.2f} s",
        ]
        if self.errors:
            worst = max(self.errors)
            lines.append(
                f"reserved against taken, later loads: median {statistics.median(self.errors):.1%}, worst {worst:.1%}"
            )
        return "\n".join([*lines, f"wrong: {self.wrong or 'nothing'}"])


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[len(ordered) * percent // 100]


async def client(session: aiohttp.ClientSession, chance: random.Random, todo: list[int], report: Report) -> None:
    """Asks, hangs up and unloads until there is nothing more to do."""
    names = list(ZOO)
    while todo:
        todo.pop()
        model = names[min(int(chance.expovariate(0.35)), len(names) - 1)]
        what = chance.choices(["ask", "stream", "hang up", "unload"], [70, 17, 8, 5])[0]
        body = {"model": model, "prompt": "Count: one two", "stream": what != "ask"}
        body["options"] = {"num_predict": chance.randint(1, 12), "temperature": 0}
        if what == "unload":
            body = {"model": model, "keep_alive": 0}
        began = time.monotonic()
        patience = chance.uniform(0.0, 1.5) if what == "hang up" else 300.0
        try:
            async with asyncio.timeout(patience), session.post("/api/generate", json=body) as reply:
                text = await reply.text()
        except TimeoutError:
            report.outcomes["hung up" if what == "hang up" else "waited 300 s"] += 1
            if what != "hang up":
                report.wrong.append(f"{model}: no answer within 300 s")
            continue
        report.outcomes[str(reply.status)] += 1
        last = json.loads(text.strip().splitlines()[-1])
        if reply.status != 200 or not last.get("done"):
            report.wrong.append(f"{model} {what}: {reply.status} {text[-200:]}")
        elif what != "unload":
            report.seconds.append(time.monotonic() - began)


async def watch_memory(running: Daemon, report: Report, done: asyncio.Event) -> None:
    """What all engines hold, as the kernel counts it."""
    assert running.process is not None
    while not done.is_set():
        engines = await asyncio.to_thread(_engines, running.process.pid)
        report.most = max(report.most, sum(engines))
        report.samples += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), 0.25)


def _engines(daemon_pid: int) -> list[int]:
    """Bytes of each engine of the daemon: its guards are the daemon's children."""
    everybody = list(procfs.processes())
    guards = [one.pid for one in everybody if one.parent == daemon_pid]
    return [procfs.resident(procfs.descendants(guard, everybody)) for guard in guards]


async def watch_rows(running: Daemon, report: Report, done: asyncio.Event) -> None:
    """What each model takes, and how near the reservations of later loads come to it."""
    loads: Counter[str] = Counter()
    last: dict[str, float] = {}
    while not done.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), 0.5)
        rows = json.loads((await asyncio.to_thread(running.ctl, "ps", "--json")).stdout)["instances"]
        for row in rows:
            if row["state"] == "ready" and row["size"] > 20 * MIB:
                name = row["name"]
                report.sizes[name] = max(report.sizes.get(name, 0), row["size"])
                if last.get(name) != row["since"]:
                    last[name] = row["since"]
                    loads[name] += 1
                    if loads[name] > 1 and row["reserved"]:
                        report.errors.append(abs(row["reserved"] - row["size"]) / row["size"])


async def play(running: Daemon, operations: int, seed: int) -> Report:
    report, done, todo = Report(), asyncio.Event(), list(range(operations))
    began = time.monotonic()
    async with aiohttp.ClientSession(running.url, timeout=aiohttp.ClientTimeout(total=None)) as session:
        watchers = [asyncio.create_task(watch(running, report, done)) for watch in (watch_memory, watch_rows)]
        await asyncio.gather(*(client(session, random.Random(seed + n), todo, report) for n in range(CLIENTS)))
        done.set()
        await asyncio.gather(*watchers)
    report.took = time.monotonic() - began
    events = running.ctl("events", "-n", "1000", "--json").stdout.splitlines()
    report.decisions.update(line["what"] for line in map(json.loads, events) if line["type"] == "decision")
    log = running.log.read_text()
    report.wrong += [line for line in log.splitlines() if "has failed" in line or "Traceback" in line]
    return report


def zoo(operations: int, seed: int = 1) -> Report:
    """Start a daemon over the zoo, and play."""
    with tempfile.TemporaryDirectory(prefix="zoo-") as directory:
        path = Path(directory, "tiny.gguf")
        path.write_bytes(TinyLlama().gguf(llama__context_length=TRAINED))
        plain = {"path": str(path), "engine": "llama_cpp", "parallel": 2, "args": ["--threads", "1"]}
        models = {name: {**plain, "context": context} for name, context in ZOO.items()}
        main = f'[fleet]\nmemory = "{MEMORY}MiB"\nmax_loaded_models = {len(ZOO)}\n'
        with daemon(models, main=main) as running:
            return asyncio.run(play(running, operations, seed))


if __name__ == "__main__":
    found = zoo(*(int(argument) for argument in (sys.argv[1:] or ["1000"])))
    print(found)
    sys.exit(bool(found.wrong))
