"""Decisions of the daemon on the wire: why a model is where it is, what a load would do, what was decided lately."""

from __future__ import annotations

from typing import Any

import msgspec

from hyperllamactl.protocol.base import Command, Reply
from hyperllamactl.protocol.instances import InstanceRow


class Decision(Reply, tag="decision"):
    """One decision of the daemon, with everything it was made from; `at` is Unix seconds."""

    at: float
    what: str  # placed, waits, refused, evicted, slept, woken, unloaded, restarted, failed, left, adopted
    model: str
    instance: str
    why: str  # a clause
    inputs: Any = None  # what was weighed; null = a time was up, or somebody gave an order
    outcome: Any = None  # what follows from the inputs, whenever they are weighed


class WhyReport(Reply, tag="why_report"):
    """`why`: what a model is now, and the decisions that led to it, oldest first."""

    model: str
    instances: list[InstanceRow] = []
    decisions: list[Decision] = []


class Why(Command):
    """Say why a model is where it is: the decisions about it, newest last."""

    reply = WhyReport

    model: str


class NeedRow(msgspec.Struct, kw_only=True):
    """Memory an instance takes, in bytes: as learned from its last load, or else estimated."""

    weights: int
    kv_cache: int
    overhead: int


class ShareRow(msgspec.Struct, kw_only=True):
    """Memory of one device."""

    gpu: int  # the driver's number; -1 = the machine's own memory
    size: int  # bytes


class LeavingRow(msgspec.Struct, kw_only=True):
    """A model that would make room."""

    model: str
    how: str  # sleeps, unloads
    requests: int  # that it would finish first
    seconds: float  # to bring it back


class LoadPlan(Reply, tag="load_plan"):
    """`plan load`: what would happen."""

    model: str
    engine: str
    outcome: str  # fits, waits, never, loaded
    why: str
    need: NeedRow | None = None
    shares: list[ShareRow] = []  # where it would lie
    leaving: list[LeavingRow] = []
    seconds: float = 0.0  # until it would be ready, once there is room


class PlanLoad(Command):
    """Say what loading a model would do now: where it would lie, who would make room, how long it would take."""

    reply = LoadPlan
    streams = True

    model: str


class Events(Command):
    """Print the daemon's decisions; `follow` keeps printing."""

    streams = True

    lines: int = 50  # at most so many from before; a thousand are kept
    follow: bool = False
