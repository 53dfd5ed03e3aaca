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


def fake(times: int, *, seed: int = 1) -> Row:
    """Over fake engines, which import nothing: what is hit is the waiting and the taking over."""
    vices = ("--token-delay", "0.01", "--words", "1000000")
    with (
        tempfile.TemporaryDirectory() as root,
        fakes(Path(root), {"steady": vices, "next": vices}, main=FLEET, tables={"llama_cpp": ON}) as running,
    ):
        return _series(running, "", times, 1e9, 0.3, seed=seed)


def real(engine: str, keys: dict[str, object], times: int, *, within: float = 1e9, seed: int = 1) -> Row:
    """Over a real engine, whose imports take seconds; `keys` are more settings of its models."""
    model = demo_model(engine) | keys
    models = {"steady": model, "next": model | {"context": 1280}}  # or they were one
    with daemon(models, main=FLEET, tables={engine: ON}) as running:
        return _series(running, f" of {engine}", times, within, 15.0, seed=seed)


def _series(running: Daemon, of: str, times: int, within: float, longest: float, *, seed: int) -> Row:
    """One dies at a random moment up to `longest` seconds after it was born; half of them are asked for meanwhile."""
    dice = random.Random(seed)
    slow: list[float] = []
    left = wrong = taken = 0
    with loaded(running, ["steady"], clients=1, right=bool) as (load,):
        eventually(lambda: load.whole, within=300, what="the steady one serves")
        end = time.monotonic() + within
        while len(slow) < times and time.monotonic() < end:
            launcher = _have_one(running)
            family, asker = everybody(launcher), _Asker(running)
            if at_once := dice.random() < 0.5:
                asker.may.set()
            time.sleep(dice.uniform(0, longest))
            began = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(launcher, signal.SIGKILL)
                taken += at_once
            asker.may.set()
            asker.join(300)
            slow.append(time.monotonic() - began)
            wrong += asker.said != answer_of(5) if not of else not asker.said
            left += len(outliving(family))
            unload(running, "next")
        whole, errors, cut = load.whole, load.errors, load.cut
    assert running.stop() == 0
    left += len(running.leftovers())
    seen = f"{taken} of them while somebody waited for what it was to become; {left} left, {wrong} wrong answers; "
    seen += f"answer after {spread(slow)}; {whole} answers of another engine meanwhile, {errors + cut} cut off"
    holds = bool(slow) and not (left or wrong or errors or cut)
    return Row(f"SIGKILL of the prepared process{of}", str(len(slow)), holds, seen)


def _have_one(running: Daemon) -> int:
    """Its process; one that died is replaced after the next start only."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: launchers(running), within=2, what="one is prepared")
    if not launchers(running):
        list(chat(running, "next", 1))
        unload(running, "next")
        eventually(lambda: launchers(running), within=60, what="one is prepared")
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
