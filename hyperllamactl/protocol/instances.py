"""Instances on the wire: what is loaded, load and unload, an engine's log, changes of state."""

from __future__ import annotations

import msgspec

from hyperllamactl.protocol.base import Command, Done, Reply, Role


class InstanceRow(msgspec.Struct, kw_only=True):
    """One instance as `ps` shows it.  Sizes in bytes, times Unix seconds."""

    name: str
    id: str  # the first 12 hex digits of the digest
    engine: str
    state: str  # waiting (for room), starting, ready, settling, sleeping, asleep, waking, draining, stopping, ...
    phase: str = ""  # of loading: starting, weights, compiling, warming
    phases: dict[str, float] = {}  # seconds each phase of its load took
    size: int = 0  # memory in use
    size_gpu: int = 0  # the part of it on GPUs
    gpus: list[int] = []  # the driver's numbers of those it lies on
    reserved: int = 0  # memory it may take; 0 = nobody counts
    processor: str = ""  # 100% CPU, 100% GPU, or both shares
    context: int = 0  # tokens per request
    parallel: int = 0  # requests the engine answers at once
    running: int = 0  # requests being answered
    waiting: int = 0  # requests waiting for it
    restarts: int = 0  # crashes since it last worked
    since: float = 0.0  # when it came into this state
    until: float | None = None  # when a ready one is unloaded; null = never
    pid: int = 0  # 0 = no process
    cause: str = ""  # why it failed or is in backoff


class Instances(Reply, tag="instances"):
    """What is loaded, loading or failed."""

    instances: list[InstanceRow]


class Ps(Command):
    """List the models that are loaded, loading or failed."""

    reply = Instances


class Load(Command):
    """Load a model and wait until it is ready."""

    role = Role.ADMIN
    reply = Instances
    streams = True

    model: str
    keep_alive: str | float | None = None  # "10m", or seconds; negative = for ever; null = as configured


class Warm(Command):
    """Load a model once and let it go again, so that what its engine compiles is there for the next start."""

    role = Role.ADMIN
    streams = True

    model: str


class Unload(Command):
    """Unload a model once its requests have ended; `now` cuts them off."""

    role = Role.ADMIN
    streams = True

    model: str
    now: bool = False


class LogLine(Reply, tag="log_line"):
    """One line an engine printed; `at` is Unix seconds."""

    at: float
    text: str


class Logs(Command):
    """Print what a model's engine wrote; `follow` keeps printing."""

    reply = Done
    streams = True

    model: str
    lines: int = 100  # at most so many from before
    follow: bool = False


class Change(Reply, tag="change"):
    """`watch`: an instance changed state or phase."""

    at: float
    name: str
    state: str
    phase: str = ""
    detail: str = ""


class Watch(Command):
    """Print every change of state as it happens."""

    streams = True
