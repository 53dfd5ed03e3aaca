"""`make faults`: the parts named, or all, at full length or `--short`; each writes its rows to docs/reliability.md.

python -m tests.faults [--short] [--minutes M] [--at-once N] [PART...]
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.daemon import daemon
from tests.faults import continued, crowds, kills, launchers, mutants, reals, report, soak
from tests.faults.report import Row
from tests.real import bad_models
from tests.real.conftest import demo_model


@dataclass(frozen=True)
class Extent:
    """How far a part goes."""

    short: bool = False
    # Seconds for one series of a heavy engine: it shares the machine, and its row says how far it came.
    heavy: float = 540.0
    # How many of a heavy engine are killed, or stopped, at a time, where the machine has room for them.
    at_once: int = 1

    def of(self, few: int, many: int) -> int:
        return few if self.short else many

    @property
    def within(self) -> float:
        return 60.0 if self.short else self.heavy


Part = Callable[[Extent], Row]


def _continued(engine: str, full: int, extent: Extent) -> Row:
    model = demo_model(engine) | ({"args": ["--threads", "1"]} if engine == "llama_cpp" else {})
    times = extent.of(2, full)
    with daemon({"m": model}, main='[fleet]\nrestart_budget = 1000\nkeep_alive = "-1"\n') as running:
        tally = continued.campaign(running, "m", times, seed=1)
    return continued.row_of(tally, engine)


def _bad_models(extent: Extent) -> Row:
    right, tried = bad_models.run("llama_cpp") if extent.short else bad_models.run()
    holds = right >= tried * bad_models.NEEDED / 30
    return Row("broken models and settings on the real engines, cause named", str(tried), holds, f"{right} right")


REALS: dict[str, Part] = {
    "kill-main-llama_cpp": lambda extent: reals.kill("llama_cpp", "main", extent.of(3, 200)),
    "kill-guard-llama_cpp": lambda extent: reals.kill("llama_cpp", "guard", extent.of(2, 200)),
    "kill-daemon-llama_cpp": lambda extent: reals.kill_daemon("llama_cpp", extent.of(2, 200)),
    "kill-prepared-vllm": lambda extent: launchers.real(
        "vllm", reals.QUICK["vllm"], extent.of(1, 200), daemons=extent.at_once, within=extent.within
    ),
    "stop-main-llama_cpp": lambda extent: reals.stop("llama_cpp", "main", extent.of(2, 200), at_once=extent.of(2, 5)),
    **{
        f"{act}-{victim}-{engine}": lambda extent, act=act, victim=victim, engine=engine: (
            reals.kill if act == "kill" else reals.stop
        )(engine, victim, extent.of(1, 200), at_once=extent.at_once, within=extent.within)
        for engine in ("vllm", "max")
        for act, victims in (("kill", ("main", "worker", "guard")), ("stop", ("main", "worker")))
        for victim in victims
    },
    **{
        f"kill-daemon-{engine}": lambda extent, engine=engine: reals.kill_daemon(
            engine, extent.of(1, 200), daemons=extent.at_once, within=extent.within
        )
        for engine in ("vllm", "max")
    },
}
PARTS: dict[str, Part] = {
    **REALS,
    "kill-main": lambda extent: kills.kill_engines("the API process", extent.of(3, 200)),
    "kill-worker": lambda extent: kills.kill_engines("a worker", extent.of(3, 200)),
    "kill-guard": lambda extent: kills.kill_engines("the guard", extent.of(3, 200)),
    "kill-prepared": lambda extent: launchers.fake(extent.of(3, 200)),
    "kill-daemon": lambda extent: kills.kill_daemon(extent.of(2, 200)),
    "stop-main": lambda extent: kills.stop_engines("the API process", extent.of(1, 20), at_once=extent.of(3, 10)),
    "stop-worker": lambda extent: kills.stop_engines("a worker", extent.of(1, 20), at_once=extent.of(3, 10)),
    "patience": lambda extent: kills.no_false_kills(extent.of(1, 5)),
    "hang-ups": lambda extent: crowds.hang_ups(extent.of(60, 1000)),
    "idle": lambda extent: crowds.idle(extent.of(200, 2000)),
    "slow-headers": lambda extent: crowds.slow_headers(extent.of(20, 200), extent.of(3, 60)),
    "slow-readers": lambda extent: crowds.slow_readers(extent.of(10, 100), extent.of(3, 60)),
    "continued-llama_cpp": partial(_continued, "llama_cpp", 200),
    "continued-vllm": partial(_continued, "vllm", 5),
    "continued-max": partial(_continued, "max", 5),
    "bad-models": _bad_models,
    "mutants": lambda _: mutants.run(),
    "soak": lambda extent: soak.run(extent.of(60, 1800)),
}


def run(name: str, extent: Extent) -> Row:
    """One part; a part that breaks is a row that says so, and no end of the others."""
    try:
        return PARTS[name](extent)
    except Exception as failure:  # an assertion, or a daemon that does not start
        traceback.print_exc()
        said = f"{type(failure).__name__}: {failure}".strip().splitlines()
        return Row(f"`{name}` broke off", "-", False, said[0][:200].replace("|", "/"))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--short", action="store_true", help="a few times each, and nothing is written")
    arguments.add_argument(
        "--minutes", type=float, default=9.0, help="of one series on vLLM or MAX, of 200 times at most"
    )
    arguments.add_argument(
        "--at-once",
        type=int,
        default=1,
        help="how many engines, or daemons, such a series has, and kills or stops at a time",
    )
    arguments.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    given = arguments.parse_args()
    if unknown := sorted(set(given.parts) - PARTS.keys()):
        arguments.error(f"there is no {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # in order: what was started is stopped
    failed = 0
    for name in given.parts or PARTS:
        row = run(name, Extent(given.short, 60 * given.minutes, given.at_once))
        failed += not row.holds
        print(f"{'ok ' if row.holds else 'BAD'} {name}: {row.what}, {row.count}: {row.seen}", flush=True)
        if not given.short and row.count != "-":
            report.write([row])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
