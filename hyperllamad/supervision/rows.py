"""What `ps` and watchers see of an instance: plain data, in Unix time and bytes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from hyperllamad.core.actions import View
from hyperllamad.core.instance import State
from hyperllamad.supervision import procfs
from hyperllamad.supervision.life import Life
from hyperllamad.supervision.plan import Plan

MEASURED_FOR = 2.0  # seconds a measurement of memory is good for
CLOCK_SET = 1.0  # seconds by which the two clocks must differ anew before the system's is thought to be set


@dataclass(frozen=True, slots=True)
class Row:
    """One instance.  Sizes in bytes, times in Unix seconds; `until` is None for ever."""

    name: str  # the one that loaded it
    instance: str
    digest: str
    engine: str
    home: str  # id of the engine home it runs in
    state: State
    phase: str  # of loading: starting, weights, compiling, warming; "" otherwise
    elapsed: float  # seconds of loading so far; 0 otherwise
    phases: Mapping[str, float]  # seconds each phase of its load took, or has taken so far
    size: int  # memory of its processes, on GPUs too
    size_gpu: int  # the part of it on GPUs, as last measured
    gpus: tuple[int, ...]  # the driver's numbers of those it lies on
    reserved: int  # memory it may take; 0 = nobody counts
    processor: str  # "100% CPU", "100% GPU"
    context: int
    parallel: int
    running: int
    waiting: int
    restarts: int
    since: float  # of the state
    until: float | None
    pid: int  # of the engine's main process; 0 = none
    cause: str  # why it failed, or why it last crashed


@dataclass(frozen=True, slots=True)
class Change:
    """An instance is in another state, or in another phase of loading."""

    at: float
    name: str
    instance: str
    state: State
    phase: str
    elapsed: float
    detail: str  # why it failed or crashed


class MemoryMeter:
    """Memory of process trees, measured only when asked, and not more often than every MEASURED_FOR seconds."""

    def __init__(self) -> None:
        self._measured_at = -math.inf
        self._sizes: dict[int, int] = {}

    def sizes(self, guards: list[int]) -> dict[int, int]:
        """Bytes by the number of the guard above the tree, its own among them: there is one for each engine."""
        now = time.monotonic()
        if now - self._measured_at > MEASURED_FOR or not self._sizes.keys() >= set(guards):
            everybody = list(procfs.processes()) if guards else []
            self._sizes = {guard: procfs.resident([guard, *procfs.descendants(guard, everybody)]) for guard in guards}
            self._measured_at = now
        return self._sizes


class Calendar:
    """Says when a time of the fleet is, the same at every look: clients hold two answers side by side."""

    def __init__(self) -> None:
        self._offset = -math.inf

    def offset(self, now: float) -> float:
        """Seconds to add to a time of the fleet, whose clock shows `now`; another only when the system's was set."""
        seen = time.time() - now
        if abs(seen - self._offset) > CLOCK_SET:
            self._offset = seen
        return self._offset


def row(view: View, plan: Plan, life: Life | None, *, size: int, size_gpu: int, now: float, unix: float) -> Row:
    """`now` is the clock of the view, `unix` what to add to its times; `size` is that of host memory."""
    loading = life is not None and view.state is State.STARTING
    waking = view.state is State.WAKING
    shares = view.placement.shares if view.placement is not None else ()
    expires_at = now + view.keep_alive if view.expires_at is None else view.expires_at
    return Row(
        name=str(plan.model.name),
        instance=str(view.key),
        digest=plan.model.digest,
        engine=plan.engine.name,
        home=plan.home.id,
        state=view.state,
        phase="waking" if waking else life.phase if life is not None and loading else "",
        elapsed=now - view.since if waking else life.elapsed if life is not None and loading else 0.0,
        phases=life.phases.took if life is not None else {},
        size=size + size_gpu,
        size_gpu=size_gpu,
        gpus=tuple(share.index for share in shares if share.index >= 0),
        reserved=sum(share.bytes for share in shares),
        processor="100% GPU" if plan.settings.device == "cuda" else "100% CPU",
        context=plan.settings.context,
        parallel=plan.settings.parallel,
        running=view.leases,
        waiting=view.waiting,
        restarts=view.crashes,
        since=unix + view.since,
        until=None if expires_at == math.inf else unix + expires_at,
        pid=life.pid if life is not None else 0,
        cause=(str(life.stuck) if life is not None else "") or str(view.error or ""),
    )
