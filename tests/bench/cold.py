"""`python -m tests.bench.cold MODEL_PATH [--loads 3] [--prepare on|off]`: a load, phase by phase, caches warm.

Loads and unloads the same model again and again through hyperllamad; the first load may fill the caches.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.bench import serving
from tests.daemon import Daemon, eventually


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--loads", type=int, default=3)
    parser.add_argument("--prepare", default="on", choices=("on", "off"))
    parser.add_argument("--args", default="", help="arguments for the engine, separated by spaces")
    parser.add_argument("--table", default="", help="more of the engine's file in engines.d")
    parser.add_argument("--log", default="", help="write the engine's log of the last load there")
    return parser.parse_args()


def wait_prepared(running: Daemon) -> float:
    """Until a process waits that has done its imports; seconds."""
    began = time.perf_counter()

    def waits() -> bool:
        return any(True for _ in (running.root / "run" / "e").glob("*/go.sock"))

    eventually(waits, within=180, what="a process is prepared")
    return time.perf_counter() - began


def main() -> None:
    stated = arguments()
    model = {"path": stated.path, "engine": stated.engine, "context": 2048, "args": stated.args.split()}
    table = f'prepare = "{stated.prepare}"\n{stated.table}'
    with serving.serving({"m": model}, engine=stated.engine, table=table) as running:
        for number in range(stated.loads):
            waited = wait_prepared(running) if stated.prepare == "on" else 0.0
            expected = serving.expected(running, "m")
            seconds = serving.load(running, "m")
            row = running.row("m")
            shown = {"load": number + 1, "prepared_within": round(waited, 1), "seconds": round(seconds, 2)}
            log = serving.engine_log(running, "m")
            shown |= serving.memory(running, "m", expected)
            shown |= {"phases": row["phases"], "unload": round(serving.unload(running, "m"), 2)}
            serving.report(f"prepare = {stated.prepare} {stated.args}", [shown])
        if stated.log:
            Path(stated.log).write_text(log)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
