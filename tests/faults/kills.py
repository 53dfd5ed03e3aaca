"""Processes are killed and stopped under load: who is left, who notices, who is answered next."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from hyperllamad.supervision import procfs
from tests.daemon import Daemon, eventually
from tests.faults.house import answer_of, chat, fakes, row, unload
from tests.faults.report import Row

SLOW = ("--token-delay", "0.01", "--words", "1000000", "--worker", "--fork")
FOUND = 15.0  # seconds in which a stopped process has to be found, of 99 in a hundred


class Load(threading.Thread):
    """A client that asks for one answer after the other; errors are counted, wrong texts remembered."""

    def __init__(self, running: Daemon, model: str, right: Callable[[str], bool]) -> None:
        super().__init__(daemon=True)
        self.running, self.model, self.right = running, model, right
        self.whole = self.errors = self.cut = self.pieces = 0
        self.last = ""
        self.wrong: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            try:
                text = "".join(self._counted(chat(self.running, self.model, 60)))
            except (AssertionError, OSError) as failure:
                own = "unloaded" in str(failure)  # the suite's own unloads, between two kills
                self.errors += not own
                self.cut += own
                self.last = self.last if own else str(failure)
                self.over.wait(0.05)
                continue
            self.whole += 1
            if not self.right(text):
                self.wrong.append(text)

    def _counted(self, pieces: Iterator[str]) -> Iterator[str]:
        for piece in pieces:
            self.pieces += 1
            yield piece


def _as_fakes_do(text: str) -> bool:
    return text == answer_of(60)


@contextlib.contextmanager
def loaded(
    running: Daemon, models: list[str], clients: int = 2, *, right: Callable[[str], bool] = _as_fakes_do
) -> Iterator[list[Load]]:
    """So many clients for each model, for as long as the block lasts; `right` judges their answers."""
    loads = [Load(running, model, right) for model in models for _ in range(clients)]
    for load in loads:
        load.start()
    try:
        yield loads
    finally:
        for load in loads:
            load.over.set()
        for load in loads:
            load.join(60)


def everybody(pid: int) -> list[int]:
    """The engine whose main process that is: its guard, and all below."""
    found = procfs.process(pid)
    if found is None:
        return []
    return [found.parent, *procfs.descendants(found.parent, procfs.processes())]


def main_process(family: list[int]) -> int:
    return family[1]


def worker(family: list[int]) -> int:
    return next(pid for pid in family[2:] if "--worker" in procfs.command_line(pid))


def guard(family: list[int]) -> int:
    return family[0]


VICTIMS: dict[str, Callable[[list[int]], int]] = {
    "the API process": main_process, "a worker": worker, "the guard": guard,
}  # fmt: skip


def kill_engines(victim: str, times: int, *, seed: int = 1) -> Row:
    """SIGKILL of one process of an engine under load, again and again."""
    dice, left, wrong, slow = random.Random(seed), 0, 0, []
    with tempfile.TemporaryDirectory() as root, fakes(Path(root), {"a": SLOW, "b": SLOW}) as running:
        with loaded(running, ["a", "b"]) as loads:
            for _ in range(times):
                model = dice.choice("ab")
                pid = up(running, model)
                family = everybody(pid)
                began = time.monotonic()
                with contextlib.suppress(ProcessLookupError, StopIteration):
                    os.kill(VICTIMS[victim](family), signal.SIGKILL)
                eventually(lambda: not alive(family), within=15, what=f"nobody left of {family}")  # noqa: B023
                wrong += "".join(chat(running, model, 5)) != answer_of(5)
                slow.append(time.monotonic() - began)
        wrong += sum(len(load.wrong) for load in loads)
        whole, errors = sum(load.whole for load in loads), sum(load.errors for load in loads)
        assert running.stop() == 0
        left = len(running.leftovers())
    seen = f"{left} left, {wrong} wrong texts; next answer after {spread(slow)}"
    cut = sum(load.cut for load in loads)
    load = f"{whole} answers to others meanwhile, {errors} errors, {cut} cut off by the suite's own unloads"
    load += "".join({f"; {load.last}" for load in loads if load.last})
    return Row(f"SIGKILL of {victim}", f"{times}", left == 0 and wrong == 0, f"{seen}; {load}")


def kill_daemon(times: int) -> Row:
    """SIGKILL of the daemon under load; the next one starts on what it left."""
    left, slow = 0, []
    with tempfile.TemporaryDirectory() as root, fakes(Path(root), {"a": SLOW, "b": SLOW}) as running:
        for _ in range(times):
            with loaded(running, ["a", "b"], clients=1) as loads:
                for model in "ab":
                    list(chat(running, model, 2))
                family = [pid for pid in running.leftovers() if pid]
                began = time.monotonic()
                running.kill()
                with contextlib.suppress(AssertionError):  # one that is about to end works nowhere any more
                    eventually(partial(_nobody, running, family), within=10, what="nobody left")
                left += len(alive(family))
                for load in loads:
                    load.over.set()
            running.start()
            assert "".join(chat(running, "a", 5)) == answer_of(5)
            slow.append(time.monotonic() - began)
    return Row("SIGKILL of the daemon", f"{times}", left == 0, f"{left} left; next answer after {spread(slow)}")


def _nobody(running: Daemon, family: list[int]) -> bool:
    return not running.leftovers() and not alive(family)


def stop_engines(victim: str, rounds: int, *, at_once: int = 10) -> Row:
    """SIGSTOP of one process of every engine under load; how long until it is replaced."""
    stalls = ("--token-delay", "0.01", "--words", "1000000", "--worker")
    models = {f"m{n}": stalls for n in range(at_once)}
    seconds: list[float] = []
    main = f"[fleet]\nmax_loaded_models = {at_once + 1}\nrestart_budget = 1000\n"
    with tempfile.TemporaryDirectory() as root, fakes(Path(root), models, main=main) as running:
        for _ in range(rounds):
            with loaded(running, list(models), clients=1):
                families = {model: everybody(up(running, model)) for model in models}
                began = time.monotonic()
                for family in families.values():
                    os.kill(main_process(family), signal.SIGSTOP)
                    if victim == "a worker":
                        os.kill(worker(family), signal.SIGSTOP)
                waiting = dict(families)
                while waiting and time.monotonic() - began < 60:
                    for model, family in list(waiting.items()):
                        if not alive([main_process(family)]):
                            seconds.append(time.monotonic() - began)
                            del waiting[model]
                    time.sleep(0.05)
                seconds += [60.0] * len(waiting)
            for model in models:
                unload(running, model)
        text = "".join(chat(running, "m0", 5))
    late = sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1]
    return Row(
        f"SIGSTOP of {victim}, found",
        str(len(seconds)),
        late < FOUND and text == answer_of(5),
        f"after {spread(seconds)}, p99 {late:.1f} s",
    )


def no_false_kills(times: int) -> Row:
    """Long prompts, slow starts and the daemon itself stopped for a while: nobody is killed for it."""
    vices = {
        "prefill": ("--prefill", "20", "--pings"), "start": ("--slow", "20", "--busy-load"),
        "quiet": ("--slow", "20"), "daemon": SLOW,
    }  # fmt: skip
    restarts = 0
    with tempfile.TemporaryDirectory() as root:
        main = "[fleet]\nmax_loaded_models = 20\n"
        with fakes(Path(root), vices, main=main) as running, loaded(running, list(vices), clients=1) as loads:
            for _ in range(times):
                assert running.process is not None
                os.kill(running.process.pid, signal.SIGSTOP)
                time.sleep(20)
                os.kill(running.process.pid, signal.SIGCONT)
                before = sum(load.whole for load in loads)
                eventually(lambda: sum(load.whole for load in loads) > before + 2, within=120, what="answers")  # noqa: B023
            eventually(lambda: all(load.whole for load in loads), within=120, what="an answer from each")
            restarts = sum(seen.restarts for model in vices if (seen := row(running, model)))
            errors = sum(load.errors for load in loads)
    what = "no kill over a prompt or a start of 20 s, or 20 s of the daemon stopped"
    return Row(
        what,
        f"{times} stops, {len(vices)} engines",
        restarts == 0 and errors == 0,
        f"{restarts} kills, {errors} errors",
    )


def up(running: Daemon, model: str, *, restarts: int = 1) -> int:
    """The main process of an engine that is ready, and was not restarted more often: each pause is twice the last."""
    if (seen := row(running, model)) and seen.restarts > restarts:
        unload(running, model)
    while True:
        with contextlib.suppress(AssertionError, OSError):
            list(chat(running, model, 1))
        if (seen := row(running, model)) and seen.pid and seen.state == "ready":
            return seen.pid


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if (found := procfs.process(pid)) is not None and not found.zombie]


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s (median), {max(seconds):.1f} s (most)" if seconds else "-"
