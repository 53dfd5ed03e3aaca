"""Every decision as a record with its inputs, so that it can be explained, and made again from them.

Plain data and one function; must not know the fleet.
"""

from __future__ import annotations

import msgspec

from hyperllamad.core import placement, queue
from hyperllamad.core.question import Answer, Question
from hyperllamad.core.queue import Overflow


class Crash(msgspec.Struct, frozen=True, tag=True):
    """A child ended by itself."""

    crashes: int  # this one included
    budget: int  # how many are followed by a restart


Inputs = Question | Overflow | Crash
Outcome = Answer | str | None


class Record(msgspec.Struct, frozen=True):
    """One decision.

    `what`: placed, waits, refused, evicted, slept, woken, unloaded, restarted, failed, left, adopted.
    """

    at: float  # the fleet's time
    what: str
    key: str  # of the instance it is about
    why: str  # a clause
    inputs: Inputs | None = None  # None = nothing was weighed: a time was up, or somebody gave an order
    outcome: Outcome = None


def replay(inputs: Inputs) -> Outcome:
    """What is decided by these inputs."""
    match inputs:
        case Question():
            return placement.decide(inputs)
        case Overflow():
            return queue.yields(inputs)
        case Crash(crashes=crashes, budget=budget):
            return "restarted" if crashes <= budget else "failed"
