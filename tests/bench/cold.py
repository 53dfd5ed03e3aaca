"""`python -m tests.bench.cold MODEL_PATH [--variant NAME=ARGS ...]`: a load, phase by phase, caches warm.

Loads and unloads the same model again and again through hyperllamad; the first load of a variant may fill its caches.
With several variants (arguments for the engine, separated by spaces; `few=--max-cudagraph-capture-size 64`) they take
turns in one daemon, and with --streams each tells what it gives once it serves, so that a quicker start is seen to be
free, or not.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

from tests.bench import serving
from tests.bench.streams import closed_loop, summary
from tests.daemon import Daemon, eventually

WORDS = 256
ALONE = 12  # requests of one stream


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=ARGS")
    parser.add_argument("--loads", type=int, default=3, help="of each variant")
    parser.add_argument("--parallel", type=int, default=0, help="requests at once; 0 = as configured")
    parser.add_argument("--streams", default="", help="measure throughput at so many, after the first load: 1,64,256")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prepare", default="on", choices=("on", "off"))
    parser.add_argument("--table", default="", help="more of the engine's file in engines.d")
    parser.add_argument("--log", default="", help="write the engine's log of every load below this directory")
    return parser.parse_args()


def wait_prepared(running: Daemon) -> float:
    """Until a process waits that has done its imports; seconds."""
    began = time.perf_counter()
    eventually(lambda: serving.prepared(running), within=180, what="a process is prepared")
    return time.perf_counter() - began


def given(running: Daemon, model: str, streams: list[int], tokens: int) -> list[dict[str, Any]]:
    """The engine's own throughput and first tokens: the daemon is not what is measured here."""
    way = serving.ways(running, model)[0]
    asyncio.run(closed_loop(way, min(4, max(streams)), 8, words=WORDS, tokens=8))
    rows = []
    for count in streams:
        requests = ALONE if count == 1 else 2 * count
        answers, seconds = asyncio.run(closed_loop(way, count, requests, words=WORDS, tokens=tokens))
        rows.append({"streams": count, **summary(answers, seconds)})
    return rows


def load(running: Daemon, name: str, stated: argparse.Namespace) -> dict[str, Any]:
    """One load: what it took, by phase, and whether the prediction was right."""
    waited = wait_prepared(running) if stated.prepare == "on" else 0.0
    expected = serving.expected(running, name)
    seconds = serving.load(running, name)
    shown = {"variant": name, "prepared_within": round(waited, 1), "seconds": round(seconds, 2)}
    return shown | serving.memory(running, name, expected) | {"phases": running.row(name)["phases"]}


def once(running: Daemon, name: str, number: int, stated: argparse.Namespace) -> bool:
    """Load and unload; False where the engine does not start with the variant's arguments."""
    try:
        serving.report(f"load {number} of {name}", [load(running, name, stated)])
    except AssertionError as failure:
        serving.report(f"load {number} of {name} failed", [{"why": str(failure)[:600]}])
        return False
    finally:
        if stated.log:
            (Path(stated.log) / f"{name}-{number}.log").write_text(serving.engine_log(running, name))
    if number == 1 and stated.streams:
        streams = [int(count) for count in stated.streams.split(",")]
        serving.report(f"{name} gives", [serving.settle(running, name), *given(running, name, streams, stated.tokens)])
    serving.report(f"unload {number} of {name}", [{"seconds": round(serving.unload(running, name), 2)}])
    return True


def main() -> None:
    stated = arguments()
    variants = dict(one.split("=", 1) for one in stated.variant or ["plain="])
    shared = {"path": stated.path, "engine": stated.engine, "context": 2048}
    shared |= {"parallel": stated.parallel} if stated.parallel else {}
    models = {name: {**shared, "args": args.split()} for name, args in variants.items()}
    table = f'prepare = "{stated.prepare}"\n{stated.table}'
    with serving.serving(models, engine=stated.engine, table=table) as running:
        left = list(models)
        for number in range(1, stated.loads + 1):
            left = [name for name in left if once(running, name, number, stated)]


if __name__ == "__main__":
    main()
