"""Random faults for a long time: does the daemon's memory grow, do its descriptors?"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import tempfile
import time
from pathlib import Path

from tests.daemon import Daemon, eventually
from tests.faults import fake_daemon
from tests.faults.crowds import usage
from tests.faults.house import answer_of, chat, fakes, row, unload
from tests.faults.kills import everybody, loaded
from tests.faults.report import Row

SLOW = ("--token-delay", "0.05", "--words", "1000000", "--worker")
MODELS = {
    "good": SLOW, "other": SLOW, "dies": (*SLOW, "--exit-after-tokens", "200"),
    "stalls": (*SLOW, "--stall-after-tokens", "300"), "garbage": ("--garbage",), "half": ("--half-sse",),
    "broken": ("--exit", "2"), "errors": ("--error-500",),
}  # fmt: skip
T95 = 2.0  # Student's t of 95 % both ways, with many samples


def run(seconds: float, *, seed: int = 1) -> Row:
    """The slopes over that time, each with its 95 % confidence interval.

    Before it there is as much time again in which faults come as fast as they are mended: what the allocator keeps is
    what was ever needed at once, and the worst moments of so many faults are behind it then.
    Samples are taken every few seconds after a fault has been mended; neighbours are averaged in twenty blocks.  The
    daemon keeps lines and decisions in rings that would take hours to fill; here they are so short that they are full
    before anything is measured.
    """
    dice = random.Random(seed)
    main = '[fleet]\nmax_loaded_models = 4\nkeep_alive = "20s"\n'
    environ = {fake_daemon.RINGS: "20"}
    with tempfile.TemporaryDirectory() as root, fakes(Path(root), MODELS, main=main, environ=environ) as running:
        with loaded(running, ["good", "other"], clients=1) as loads:
            before = _faults(running, dice, seconds, pause=(0.0, 0.1))
            samples = _faults(running, dice, seconds, pause=(0.5, 3.0))
        wrong = sum(len(load.wrong) for load in loads)
        whole = sum(load.whole for load in loads)
        eventually(lambda: "".join(chat(running, "good", 5)) == answer_of(5), within=120, what="an answer at the end")
    descriptors, memory = (slope([(at, each[n]) for each in samples for at in [each[0]]]) for n in (1, 2))
    flat = all(low <= 0 <= high for _, low, high in (descriptors, memory))
    told = f"memory {_hour(memory, 2**10)} KiB an hour, descriptors {_hour(descriptors, 1)} an hour (95 %); "
    told += f"{whole} whole answers, {wrong} wrong"
    count = f"{seconds / 60:.0f} min, {len(samples)} faults, after {len(before)} in as long"
    return Row("soak with random faults", count, flat and not wrong, told)


def _faults(
    running: Daemon, dice: random.Random, seconds: float, *, pause: tuple[float, float]
) -> list[tuple[float, int, int]]:
    """One after the other for so long; after each the time, and what the daemon uses."""
    samples = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(AssertionError, OSError, ProcessLookupError):
            _fault(running, dice)
        time.sleep(dice.uniform(*pause))
        samples.append((time.monotonic(), *usage(running)))
    return samples


def _fault(running: Daemon, dice: random.Random) -> None:
    """One of them: a process killed or stopped, a model unloaded, or a request to an engine with a vice."""
    model = dice.choice(list(MODELS))
    if model in {"good", "other"}:
        seen = row(running, model)
        if seen is not None and seen.pid:
            victim = dice.choice(everybody(seen.pid) or [seen.pid])
            os.kill(victim, dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP]))
    elif dice.random() < 0.2:
        unload(running, model)
    else:
        list(chat(running, model, 20))


def slope(points: list[tuple[float, float]], blocks: int = 20) -> tuple[float, float, float]:
    """(slope, its lower and upper 95 % bound) by least squares over the means of that many blocks, for each second."""
    size = max(1, len(points) // blocks)
    means = [
        (statistics.fmean(x for x, _ in block), statistics.fmean(y for _, y in block))
        for block in (points[at : at + size] for at in range(0, len(points), size))
    ]
    xs, ys = zip(*means, strict=True)
    fit = statistics.linear_regression(xs, ys)
    rest = sum((y - fit.slope * x - fit.intercept) ** 2 for x, y in means)
    spread = sum((x - statistics.fmean(xs)) ** 2 for x in xs)
    error = T95 * (rest / max(1, len(means) - 2) / spread) ** 0.5
    return fit.slope, fit.slope - error, fit.slope + error


def _hour(found: tuple[float, float, float], unit: float) -> str:
    middle, low, high = (value * 3600 / unit for value in found)
    return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"
