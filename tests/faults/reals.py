"""Real engines are killed and stopped under load, again and again: who is left, what is the memory, who is answered?

The demo model on each engine, with settings that make a start quick.  Memory is what cannot be taken back from the
daemon and everybody below it: compared once an engine has loaded, after each of its deaths, and when it was unloaded.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hyperllamactl.client import Client
from hyperllamactl.protocol.daemon import Status, StatusReport
from hyperllamactl.protocol.machine import Info, MachineReport
from hyperllamad.engines import base
from hyperllamad.supervision import procfs
from tests.daemon import Daemon, daemon, eventually
from tests.faults import memory
from tests.faults.crowds import SPARE_MEMORY
from tests.faults.house import unload
from tests.faults.kills import FOUND, Load, alive, everybody, guard, loaded, main_process, spread, up
from tests.faults.memory import Held
from tests.faults.report import Row
from tests.real.conftest import answer, demo_model

QUICK: dict[str, dict[str, Any]] = {
    "llama_cpp": {"context": 2048, "parallel": 4, "args": ["--threads", "1"]},
    "vllm": {"context": 1024, "parallel": 4, "args": ["--enforce-eager"]},
    "max": {"context": 1024, "parallel": 4},
}
RESTARTS = 3  # of one load: the pause before a fourth, of 8 s, is about as long as a load of a quick engine
GONE = 30.0  # seconds for nobody to be left; an engine gives back gigabytes, on a machine that others keep busy
GROWN = 1.25  # what an engine may hold after so many deaths, of what it held at first
MAIN = '[fleet]\nrestart_budget = 1000\nkeep_alive = "-1"\nmax_loaded_models = 100\n'


def worker(family: list[int], engine: str) -> int:
    """The process that computes, where that is another than the one that answers."""
    vital = base.load(engine).vital
    return next(pid for pid in family[2:] if re.search(vital, procfs.command_line(pid)))


VICTIMS: dict[str, Callable[[list[int], str], int]] = {
    "main": lambda family, _: main_process(family),
    "worker": worker,
    "guard": lambda family, _: guard(family),
}
NAMES = {"main": "the main process", "worker": "the worker", "guard": "the guard"}


@contextlib.contextmanager
def serving(engine: str, models: int = 1) -> Iterator[tuple[Daemon, Held]]:
    """A daemon with the demo model once, or as often as wanted, and nothing loaded yet."""
    quick = demo_model(engine) | QUICK[engine]
    keys = {f"m{n}": quick | {"context": quick["context"] + 256 * n} for n in range(models)}  # or they were one
    with daemon(keys, main=MAIN) as running, memory.watched(running) as held:
        yield running, held


def spent(running: Daemon, held: Held) -> int:
    """Bytes held while nothing is loaded, without the process that waits for the next start, where there is one."""
    return held.held() - procfs.unreclaimable(running.leftovers())


def rest(running: Daemon, held: Held, empty: int) -> tuple[int, str, int]:
    """The same beyond what was spent before, with a word about it; and by engines, as the daemon says."""
    client = Client([str(running.root / "run/admin.sock")], warn=print)
    found, status = client.call(Info(), MachineReport), client.call(Status(), StatusReport)
    engines = found.ours + sum(gpu.ours for gpu in found.gpus) - sum(status.prepared.values())
    more = spent(running, held) - empty
    return more, f"{more / 2**20:+.0f} MiB once unloaded, {held.shared() / 2**20:.1f} of it shared", engines


def kill(engine: str, victim: str, times: int, *, at_once: int = 1, within: float = 1e9, seed: int = 1) -> Row:
    """SIGKILL of one process of every engine in the middle of answers, so often or for so many seconds."""
    dice = random.Random(seed)
    sizes: list[int] = []
    slow: list[float] = []
    left = wrong = 0
    with serving(engine, at_once) as (running, held):
        models = [f"m{n}" for n in range(at_once)]
        empty, end = spent(running, held), time.monotonic() + within
        with loaded(running, models, clients=1, right=bool) as loads, ThreadPoolExecutor(at_once) as askers:
            while len(slow) < times and time.monotonic() < end:
                families = [everybody(pid) for pid in askers.map(partial(up, running, restarts=RESTARTS), models)]
                sizes.append(held.held())
                began = []
                for family in families:
                    time.sleep(dice.uniform(0, 0.3))  # so that it is hit at any point of an answer
                    began.append(time.monotonic())
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(VICTIMS[victim](family, engine), signal.SIGKILL)
                left += sum(len(outliving(family)) for family in families)
                asked = askers.map(lambda model: ("Paris" in answer(running.url, model), time.monotonic()), models)
                for (right, now), since in zip(asked, began, strict=True):
                    wrong += not right
                    slow.append(now - since)
        for model in models:
            unload(running, model)
        more, told, counted = rest(running, held, empty)
        assert running.stop() == 0
        left += len(running.leftovers())
    grown = statistics.median(sizes[-10:]) / statistics.median(sizes[:10])
    whole, cut = sum(load.whole for load in loads), sum(load.errors + load.cut for load in loads)
    seen = f"{left} left, {wrong} wrong answers; next answer after {spread(slow)}; {whole} answers to another "
    seen += f"meanwhile, {cut} cut off; memory {held.how}: {sizes[0] >> 20} MiB once loaded, "
    seen += f"{100 * grown - 100:+.0f} % after the last kills, {told}; "
    seen += f"{counted >> 20} MiB of engines by `info` then"
    holds = not left and not wrong and counted < 1 << 20 and more <= SPARE_MEMORY and grown <= GROWN
    together = f", {at_once} at a time" if at_once > 1 else ""
    return Row(f"SIGKILL of {NAMES[victim]} of {engine}{together}", str(len(slow)), holds and bool(slow), seen)


@dataclass
class Rest:
    """What a series of killed daemons came to; two of them add up."""

    slow: list[float] = field(default_factory=list)  # seconds from a death to the next answer
    held: list[int] = field(default_factory=list)  # bytes, once nobody was left
    left: int = 0
    wrong: int = 0
    how: str = ""  # memory was measured

    def __add__(self, other: Rest) -> Rest:
        slow, held = self.slow + other.slow, self.held + other.held
        return Rest(slow, held, self.left + other.left, self.wrong + other.wrong, other.how or self.how)


def kill_daemon(engine: str, times: int, *, daemons: int = 1, within: float = 1e9) -> Row:
    """SIGKILL of the daemon in the middle of answers; the next one starts on what it left.  Several side by side."""
    with ThreadPoolExecutor(daemons) as side_by_side:
        series = [side_by_side.submit(_kill_daemon, engine, -(-times // daemons), within) for _ in range(daemons)]
        rest = sum((one.result() for one in series), Rest())
    seen = f"{rest.left} left, {rest.wrong} wrong answers; next answer after {spread(rest.slow)}; "
    seen += f"memory {rest.how} once nobody was left: {max(rest.held) >> 20} MiB at most"
    holds = not rest.left and not rest.wrong and max(rest.held) <= SPARE_MEMORY
    together = f", {daemons} daemons at a time" if daemons > 1 else ""
    return Row(f"SIGKILL of the daemon over {engine}{together}", str(len(rest.slow)), holds, seen)


def _kill_daemon(engine: str, times: int, within: float) -> Rest:
    rest = Rest()
    with serving(engine) as (running, held):
        rest.how = held.how
        end = time.monotonic() + within
        while len(rest.slow) < times and time.monotonic() < end:
            with loaded(running, ["m0"], clients=1, right=bool):
                family = everybody(up(running, "m0"))
                began = time.monotonic()
                running.kill()
                # Also what waited for the next start: it is no engine's yet, and ends as they do.
                rest.left += len(outliving(list({*family, *running.leftovers()})))
                rest.held.append(held.held())
            running.start()
            held.add(running)
            rest.wrong += "Paris" not in answer(running.url, "m0")
            rest.slow.append(time.monotonic() - began)
        assert running.stop() == 0
        rest.left += len(running.leftovers())
    return rest


def stop(engine: str, victim: str, times: int, *, at_once: int = 1, within: float = 1e9) -> Row:
    """SIGSTOP of one process of every engine in the middle of an answer; how long until it is replaced."""
    seconds: list[float] = []
    wrong = left = 0
    with serving(engine, at_once) as (running, held):
        models = [f"m{n}" for n in range(at_once)]
        empty, end = spent(running, held), time.monotonic() + within
        with loaded(running, models, clients=1, right=bool) as loads, ThreadPoolExecutor(at_once) as askers:
            while len(seconds) < times and time.monotonic() < end:
                families = [everybody(pid) for pid in askers.map(partial(up, running, restarts=RESTARTS), models)]
                _in_the_middle(loads)
                seconds += _stopped([VICTIMS[victim](family, engine) for family in families])
                left += sum(len(outliving(family)) for family in families)
                asked = askers.map(partial(answer, running.url), models)
                wrong += sum("Paris" not in said for said in asked)
        for model in models:
            unload(running, model)
        more, told, counted = rest(running, held, empty)
        assert running.stop() == 0
        left += len(running.leftovers())
    late = sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1]
    seen = f"after {spread(seconds)}, p99 {late:.1f} s; {left} left, {wrong} wrong answers afterwards; "
    seen += f"memory {held.how}: {told}, {counted >> 20} MiB of engines by `info`"
    holds = late < FOUND and not left and not wrong and counted < 1 << 20 and more <= SPARE_MEMORY
    together = f", {at_once} at a time" if at_once > 1 else ""
    return Row(f"SIGSTOP of {NAMES[victim]} of {engine}{together}, found", str(len(seconds)), holds, seen)


def _in_the_middle(loads: list[Load]) -> None:
    """Until each of them has got another piece of an answer."""
    before = [load.pieces for load in loads]
    more = partial(zip, loads, before, strict=True)
    eventually(lambda: all(load.pieces > seen for load, seen in more()), within=120, what="all answer")


def _stopped(pids: list[int]) -> list[float]:
    """Stop them all; the seconds until each of them was ended, 60 for one that was not."""
    began = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    seconds: dict[int, float] = {}
    while len(seconds) < len(pids) and time.monotonic() - began < 60:
        for pid in pids:
            if pid not in seconds and not alive([pid]):
                seconds[pid] = time.monotonic() - began
        time.sleep(0.05)
    return [seconds.get(pid, 60.0) for pid in pids]


def outliving(family: list[int]) -> list[int]:
    """Who of them outlives GONE seconds."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: not alive(family), within=GONE, what="nobody is left")
    return alive(family)
