"""`python -m tests.bench.through MODEL_PATH [--engine vllm] [--streams 16,64,256]`: what the daemon costs.

The same engine process serves all ways in turn, round by round, so that only what stands before it differs: its own
completion route over its Unix socket and the daemon's /api/generate (raw), which asks that; its own chat route and
the daemon's /v1/chat/completions.  The daemon's /v1/completions lays the chat template around a prompt, as Ollama's
does, so it would be compared with what it does not ask.  Reported per way and number of streams: the median of the
rounds, and the daemon's share of the engine's own throughput on the same route.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from pathlib import Path
from typing import Any

from tests.bench import serving
from tests.bench.streams import Way, closed_loop, summary

TOKENS, PROMPT = 128, 256
ALONE, SHORT = 40, 32  # requests of one stream, and their tokens: there it is the first token that counts


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--streams", default="16,64,256", help="of one stream tests.bench.phases tells more")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--args", default="", help="arguments for the engine, separated by spaces")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--quantize", default="", help="quantise the weights on their way: fp8")
    parser.add_argument("--completions", action="store_true", help="not the chat routes")
    parser.add_argument("--table", default="", help="content of the engine's file in engines.d")
    parser.add_argument("--log", default="", help="write the engine's log there")
    return parser.parse_args()


def measure(ways: tuple[Way, ...], streams: int, rounds: int, tokens: int) -> list[dict[str, Any]]:
    """A row for each way: medians over the rounds, in which the ways take turns, each of an engine's before ours."""
    found: dict[str, list[dict[str, float]]] = {way.title: [] for way in ways}
    for number in range(rounds):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            requests, made = (ALONE, min(SHORT, tokens)) if streams == 1 else (2 * streams, tokens)
            answers, seconds = asyncio.run(closed_loop(way, streams, requests, words=PROMPT, tokens=made))
            found[way.title].append(summary(answers, seconds))
    rows = [
        {
            "way": title,
            "streams": streams,
            **{key: round(statistics.median(r[key] for r in runs), 2) for key in runs[0]},
            "rounds_tok_s": [r["tok_s"] for r in runs],
        }
        for title, runs in found.items()
    ]
    own = [rows[number // 2 * 2]["tok_s"] for number in range(len(rows))]
    return [row | {"of_engine": round(row["tok_s"] / engine, 4)} for row, engine in zip(rows, own, strict=True)]


def main() -> None:
    stated = arguments()
    most = max(map(int, stated.streams.split(",")))
    model = {"path": stated.path, "engine": stated.engine, "context": 2048, "parallel": most}
    model |= {"args": stated.args.split(), "quantize": stated.quantize}
    with serving.serving({"m": model}, engine=stated.engine, table=stated.table) as running:
        seconds = serving.load(running, "m")
        serving.report("load", [{"seconds": round(seconds, 1), "phases": running.row("m")["phases"]}])
        serving.report("settled", [serving.settle(running, "m")])
        ways = serving.pairs(running, "m")[: 2 if stated.completions else 4]
        for way in ways:  # whatever is compiled or filled at first
            asyncio.run(closed_loop(way, min(4, most), 8, words=PROMPT, tokens=8))
        for streams in map(int, stated.streams.split(",")):
            serving.report(f"{streams} streams", measure(ways, streams, stated.rounds, stated.tokens))
        if stated.log:
            Path(stated.log).write_text(serving.engine_log(running, "m"))


if __name__ == "__main__":
    main()
