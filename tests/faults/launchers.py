"""Processes that were prepared for the next start are killed: while they import, wait, and are given their orders.

Whoever asks for a model then gets his answer from an engine that was started anew; nobody else notices.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path

from hyperllamad.supervision import procfs
from tests.daemon import Daemon, daemon, eventually
from tests.faults.house import answer_of, chat, fakes, row, unload
from tests.faults.kills import everybody, loaded, spread
from tests.faults.reals import outliving
from tests.faults.report import Row
from tests.real.conftest import demo_model

ON = 'prepare = "on"\n'
FLEET = '[fleet]\nrestart_budget = 1000\nkeep_alive = "-1"\nmax_loaded_models = 10\n'
GUARD = "supervision/guard.py"


@dataclass
class Tally:
    """What a series came to; two of them add up."""

    slow: list[float] = field(default_factory=list)  # seconds from a death to the answer
    taken: int = 0  # while somebody waited for what it was to become
    left: int = 0
    wrong: int = 0
    whole: int = 0  # answers of the other engine meanwhile
    cut: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def fake(times: int, *, seed: int = 1) -> Row:
    """Over fake engines, which import nothing: what is hit is the waiting and the taking over."""
    vices = ("--token-delay", "0.01", "--words", "1000000")
    with (
        tempfile.TemporaryDirectory() as root,
        fakes(Path(root), {"steady": vices, "next": vices}, main=FLEET, tables={"llama_cpp": ON}) as running,
    ):
        return _row("", _series(running, times, 1e9, 0.3, right=answer_of(5).__eq__, seed=seed))


def real(
    engine: str, keys: dict[str, object], times: int, *, daemons: int = 1, within: float = 1e9, seed: int = 1
) -> Row:
    """Over a real engine, whose imports take seconds; `keys` are more settings of its models.

    A daemon prepares one process of a home at a time: with more of them there are as many.
    """
    model = demo_model(engine) | keys
    models = {"steady": model, "next": model | {"context": 1280}}  # or they were one

    def one(number: int) -> Tally:
        with daemon(models, main=FLEET, tables={engine: ON}) as running:
            return _series(running, -(-times // daemons), within, 15.0, right=bool, seed=seed + number)

    with ThreadPoolExecutor(daemons) as side_by_side:
        tallies = list(side_by_side.map(one, range(daemons)))
    together = f", {daemons} daemons at a time" if daemons > 1 else ""
    return _row(f" of {engine}{together}", sum(tallies, Tally()))


def _series(
    running: Daemon, times: int, within: float, longest: float, *, right: Callable[[str], bool], seed: int
) -> Tally:
    """One dies at a random moment up to `longest` seconds after it was born; half of them are asked for meanwhile."""
    dice, tally = random.Random(seed), Tally()
    with loaded(running, ["steady"], clients=1, right=bool) as (load,):
        eventually(lambda: load.whole, within=300, what="the steady one serves")
        end = time.monotonic() + within
        while len(tally.slow) < times and time.monotonic() < end:
            launcher = _have_one(running)
            family, asker = everybody(launcher), _Asker(running)
            if at_once := dice.random() < 0.5:
                asker.may.set()
            time.sleep(dice.uniform(0, longest))
            began = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(launcher, signal.SIGKILL)
                tally.taken += at_once
            asker.may.set()
            asker.join(300)
            tally.slow.append(time.monotonic() - began)
            tally.wrong += not right(asker.said)
            tally.left += len(outliving(family))
            unload(running, "next")
        tally.whole, tally.cut = load.whole, load.errors + load.cut
    assert running.stop() == 0
    tally.left += len(running.leftovers())
    return tally


def _row(of: str, tally: Tally) -> Row:
    seen = f"{tally.taken} of them while somebody waited for what it was to become; {tally.left} left, "
    seen += f"{tally.wrong} wrong answers; answer after {spread(tally.slow)}; {tally.whole} answers of another engine "
    seen += f"meanwhile, {tally.cut} cut off"
    holds = bool(tally.slow) and not (tally.left or tally.wrong or tally.cut)
    return Row(f"SIGKILL of the prepared process{of}", str(len(tally.slow)), holds, seen)


def _have_one(running: Daemon) -> int:
    """Its process; one that died is replaced after the next start only."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: launchers(running), within=2, what="one is prepared")
    if not launchers(running):
        with contextlib.suppress(AssertionError, OSError):
            list(chat(running, "next", 1))
        unload(running, "next")
        eventually(lambda: launchers(running), within=120, what="one is prepared")
    return launchers(running)[0]


class _Asker(threading.Thread):
    """Asks for the next model once it may."""

    def __init__(self, running: Daemon) -> None:
        super().__init__(daemon=True)
        self._running = running
        self.may = threading.Event()
        self.said = ""
        self.start()

    def run(self) -> None:
        self.may.wait()
        with contextlib.suppress(AssertionError, OSError):
            self.said = "".join(chat(self._running, "next", 5))


def launchers(running: Daemon) -> list[int]:
    """Main processes under a guard that belong to no model's engine yet."""
    known = {pid for name in ("steady", "next") if (seen := row(running, name)) for pid in everybody(seen.pid)}
    guards = [pid for pid in running.leftovers() if pid not in known and GUARD in procfs.command_line(pid)]
    below = [procfs.descendants(guard, procfs.processes()) for guard in guards]
    return [family[0] for family in below if family]
