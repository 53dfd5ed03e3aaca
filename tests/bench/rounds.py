"""Alone, beside others, alone again: rounds of these in one run, so that a busy minute spoils a round, not the answer.

A ratio is that of one round: beside, over alone before and after.  The control is alone after over alone before, which
nothing but the machine can make differ from 1: a ratio that lies within the control's range says nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

SHARES = {"p50": 0.5, "p99": 0.99}


def quantile(times: Sequence[float], share: float) -> float:
    """Of times in any order; the one that this share of them does not exceed, nearest rank."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds, in the order in which they were measured."""

    before: list[float]
    beside: list[float]
    after: list[float]

    def ratio(self, share: float) -> float:
        return quantile(self.beside, share) / quantile(self.before + self.after, share)

    def control(self, share: float) -> float:
        return quantile(self.after, share) / quantile(self.before, share)


async def rounds(
    count: int,
    measure: Callable[[float], Awaitable[list[float]]],
    others: Callable[[], AbstractAsyncContextManager[None]],
    *,
    alone: float,
    beside: float,
) -> list[Round]:
    """`measure` takes seconds and gives times; inside `others` the others are there, outside none of them is left."""
    found = []
    for _ in range(count):
        before = await measure(alone)
        async with others():
            disturbed = await measure(beside)
        found.append(Round(before, disturbed, await measure(alone)))
    return found


def show(what: str, found: Sequence[Round]) -> None:
    """A line for each quantile: milliseconds over all rounds; of the ratios median [least, most]."""
    alone = [time for one in found for time in one.before + one.after]
    beside = [time for one in found for time in one.beside]
    for name, share in SHARES.items():
        ratios = _spread([one.ratio(share) for one in found])
        control = _spread([one.control(share) for one in found])
        times = f"{quantile(alone, share) * 1e3:7.2f} {quantile(beside, share) * 1e3:7.2f}"
        print(f"{what:<13} {name}  {times}   {ratios}   {control}", flush=True)
    print(f"{'':<13} {len(alone)} requests alone, {len(beside)} beside, in {len(found)} rounds", flush=True)


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):5.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
