"""A daemon for benchmarks: starts one over given model directories, loads models, finds an engine's own socket."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.streams import Way
from tests.daemon import Daemon, daemon

SLEEPS = "'enable_sleep_mode': True"  # vLLM's word on its arguments
PINNED = "hyperllama: pinned"  # launchers/vllm_worker.py says so when it is done


@contextmanager
def serving(
    models: dict[str, dict[str, Any]],
    *,
    main: str = "",
    engine: str = "vllm",
    table: str = "",
    module: str = "hyperllamad",
    environ: dict[str, str] | None = None,
) -> Iterator[Daemon]:
    """`models` as models.d has them, `main` a part of hyperllamad.toml, `table` what engines.d has about the engine."""
    with daemon(models, main=main, tables={engine: table}, module=module, environ=environ) as running:
        yield running


def load(running: Daemon, model: str) -> float:
    """Seconds until it is ready."""
    began = time.perf_counter()
    running.ctl("load", model, "--keep-alive", "-1", timeout=900)
    return time.perf_counter() - began


def settle(running: Daemon, model: str, within: float = 60) -> dict[str, Any]:
    """Wait for what goes on beside the serving after a load: seconds until host memory is pinned, where the model can
    sleep, and until the next process is prepared, where one is.
    """
    waited: dict[str, Any] = {}
    if SLEEPS in engine_log(running, model):
        waited["pinned"] = _waited(lambda: PINNED in engine_log(running, model), within)
    if json.loads(running.ctl("status", "--json").stdout).get("prepared"):
        waited["prepared"] = _waited(lambda: prepared(running), within)
    return waited


def _waited(check: Callable[[], bool], within: float) -> float | str:
    began = time.perf_counter()
    while not check():
        if time.perf_counter() - began > within:
            return f"not within {within:.0f} s"
        time.sleep(0.2)
    return round(time.perf_counter() - began, 1)


def prepared(running: Daemon) -> bool:
    """A process waits for orders that has done its imports."""
    return any(True for _ in (running.root / "run" / "e").glob("*/go.sock"))


def unload(running: Daemon, model: str) -> float:
    """Seconds until nothing of it is left."""
    began = time.perf_counter()
    running.ctl("unload", model)
    return time.perf_counter() - began


def expected(running: Daemon, model: str) -> dict[str, int]:
    """What the daemon thinks that the model would take: weights, kv_cache and overhead in bytes."""
    planned = json.loads(running.ctl("plan", "load", model, "--json", check=False).stdout or "{}")
    need = planned.get("need") or {}
    return {key: int(need.get(key, 0)) for key in ("weights", "kv_cache", "overhead")}


def memory(running: Daemon, model: str, before: dict[str, int]) -> dict[str, Any]:
    """The prediction beside what a loaded model holds, on GPUs once that was measured, and the error."""
    total = sum(before.values())
    kind = "size_gpu" if "GPU" in running.row(model)["processor"] else "size"
    deadline = time.monotonic() + 5
    while not (held := running.row(model)[kind]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return {"predicted": total, "held": held, "error": round(total / held - 1, 4) if held else None}


def ways(running: Daemon, model: str) -> tuple[Way, Way, Way]:
    """The engine itself, and the daemon's two routes to it."""
    row = running.row(model)
    socket = Path(f"/proc/{row['pid']}/cwd").readlink().parent / "e.sock"
    return (
        Way("engine", "http://engine", "/v1/completions", row["id"], str(socket)),
        Way("daemon /v1", running.url, "/v1/completions", model),
        Way("daemon /api", running.url, "/api/generate", model),
    )


def pairs(running: Daemon, model: str) -> tuple[Way, Way, Way, Way]:
    """The engine itself and the daemon's route that asks it the same, for completions and for chats."""
    engine, _, api = ways(running, model)
    return (
        replace(engine, title="engine, completions"),
        replace(api, title="daemon /api/generate"),
        replace(engine, title="engine, chats", path="/v1/chat/completions"),
        Way("daemon /v1/chat", running.url, "/v1/chat/completions", model),
    )


def engine_log(running: Daemon, model: str, lines: int = 3000) -> str:
    """Nothing where the model was never loaded."""
    return running.ctl("logs", model, "--lines", str(lines), check=False).stdout


def keep_logs(running: Daemon, models: Sequence[str], directory: str) -> None:
    """The daemon's log and those of the models' engines, for who wants to know why."""
    (Path(directory) / "daemon.log").write_bytes(running.log.read_bytes())
    for model in models:
        (Path(directory) / f"{model}.log").write_text(engine_log(running, model))


def report(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """A heading, then one JSON object a line: for people and for programs."""
    print(f"## {title}")
    for row in rows:
        print(json.dumps(row))
    sys.stdout.flush()
