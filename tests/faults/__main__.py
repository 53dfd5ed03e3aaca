"""`make faults`: the parts named, or all, at full length or `--short`; each writes its rows to docs/reliability.md.

python -m tests.faults [--short] [PART...]
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial

from tests.daemon import daemon
from tests.faults import continued, crowds, kills, launchers, mutants, reals, report, soak
from tests.faults.report import Row
from tests.real import bad_models
from tests.real.conftest import demo_model

Part = Callable[[bool], Row]


def _continued(engine: str, full: int, short: bool) -> Row:
    model = demo_model(engine) | ({"args": ["--threads", "1"]} if engine == "llama_cpp" else {})
    times = 2 if short else full
    with daemon({"m": model}, main='[fleet]\nrestart_budget = 1000\nkeep_alive = "-1"\n') as running:
        tally = continued.campaign(running, "m", times, seed=1)
    return continued.row_of(tally, engine)


def _bad_models(short: bool) -> Row:
    right, tried = bad_models.run("llama_cpp") if short else bad_models.run()
    holds = right >= tried * bad_models.NEEDED / 30
    return Row("broken models and settings on the real engines, cause named", str(tried), holds, f"{right} right")


def _slice(short: bool) -> float:
    """Seconds one series of a heavy engine may take: it shares the machine, and its row says how far it came."""
    return 60.0 if short else 540.0


REALS: dict[str, Part] = {
    "kill-main-llama_cpp": lambda short: reals.kill("llama_cpp", "main", 3 if short else 200),
    "kill-guard-llama_cpp": lambda short: reals.kill("llama_cpp", "guard", 2 if short else 200),
    "kill-daemon-llama_cpp": lambda short: reals.kill_daemon("llama_cpp", 2 if short else 200),
    "kill-prepared-vllm": lambda short: launchers.real(
        "vllm", reals.QUICK["vllm"], 1 if short else 200, within=_slice(short)
    ),
    "stop-main-llama_cpp": lambda short: reals.stop("llama_cpp", "main", 2 if short else 50, at_once=2 if short else 5),
    **{
        f"{act}-{victim}-{engine}": lambda short, act=act, victim=victim, engine=engine: (
            reals.kill if act == "kill" else reals.stop
        )(engine, victim, 1 if short else 200, within=_slice(short))
        for engine in ("vllm", "max")
        for act in ("kill", "stop")
        for victim in ("main", "worker")
    },
}
PARTS: dict[str, Part] = {
    **REALS,
    "kill-main": lambda short: kills.kill_engines("the API process", 3 if short else 200),
    "kill-worker": lambda short: kills.kill_engines("a worker", 3 if short else 200),
    "kill-guard": lambda short: kills.kill_engines("the guard", 3 if short else 200),
    "kill-prepared": lambda short: launchers.fake(3 if short else 200),
    "kill-daemon": lambda short: kills.kill_daemon(2 if short else 200),
    "stop-main": lambda short: kills.stop_engines("the API process", 1 if short else 20, at_once=3 if short else 10),
    "stop-worker": lambda short: kills.stop_engines("a worker", 1 if short else 20, at_once=3 if short else 10),
    "patience": lambda short: kills.no_false_kills(1 if short else 5),
    "hang-ups": lambda short: crowds.hang_ups(60 if short else 1000),
    "idle": lambda short: crowds.idle(200 if short else 2000),
    "slow-headers": lambda short: crowds.slow_headers(20 if short else 200, 3 if short else 60),
    "slow-readers": lambda short: crowds.slow_readers(10 if short else 100, 3 if short else 60),
    "continued-llama_cpp": partial(_continued, "llama_cpp", 200),
    "continued-vllm": partial(_continued, "vllm", 5),
    "continued-max": partial(_continued, "max", 5),
    "bad-models": _bad_models,
    "mutants": lambda _: mutants.run(),
    "soak": lambda short: soak.run(60 if short else 1800),
}


def run(name: str, *, short: bool) -> Row:
    """One part; a part that breaks is a row that says so, and no end of the others."""
    try:
        return PARTS[name](short)
    except Exception as failure:  # an assertion, or a daemon that does not start
        traceback.print_exc()
        said = f"{type(failure).__name__}: {failure}".strip().splitlines()
        return Row(f"`{name}` broke off", "-", False, said[0][:200].replace("|", "/"))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--short", action="store_true", help="a few times each, and nothing is written")
    arguments.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    given = arguments.parse_args()
    if unknown := sorted(set(given.parts) - PARTS.keys()):
        arguments.error(f"there is no {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # in order: what was started is stopped
    failed = 0
    for name in given.parts or PARTS:
        row = run(name, short=given.short)
        failed += not row.holds
        print(f"{'ok ' if row.holds else 'BAD'} {name}: {row.what}, {row.count}: {row.seen}", flush=True)
        if not given.short and row.count != "-":
            report.write([row])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
