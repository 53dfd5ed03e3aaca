"""What the end of an engine means: whether another try may succeed, and the sentence its clients are told.

Pure but for the kernel's count of kills for memory; must not know lives, nor what follows from an end.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from hyperllamad.core.errors import EngineDiedError, HyperLlamaError, LoadFailedError
from hyperllamad.core.instance import Fact
from hyperllamad.core.models import Limits
from hyperllamad.engines import causes
from hyperllamad.supervision import procfs
from hyperllamad.supervision.cgroups import Deaths
from hyperllamad.supervision.child import Exit
from hyperllamad.supervision.plan import Plan

SEE_LOGS = "`hyperllamactl logs` shows what it wrote last"
MORE_MEMORY = "a smaller context or fewer parallel requests need less; `memory_max` of the model or engine is the limit"


@dataclass(frozen=True, slots=True)
class End:
    """What a life comes to: EXITED or BROKEN, and why if nobody asked for it."""

    fact: Fact
    error: HyperLlamaError | None = None


class MemoryKills:
    """Whether somebody on this machine was killed for memory since it was made: perhaps it was the engine."""

    def __init__(self) -> None:
        self._before = procfs.memory_kills()

    def __bool__(self) -> bool:
        return procfs.memory_kills() != self._before


def explain(
    plan: Plan, ended: Exit, program: str, tail: Sequence[str], *, served: bool, memory_kills: MemoryKills
) -> End:
    """The end of an engine that nobody asked for; `tail` is what it printed last, `served` = it was ready once."""
    engine = plan.engine
    kind = EngineDiedError if served else LoadFailedError
    if ended.spawn_error:
        why = os.strerror(ended.spawn_error)
        hint = f"`hyperllamactl engine install {engine.name}` makes a new home for the engine"
        fact = Fact.EXITED if ended.transient else Fact.BROKEN
        return End(fact, kind(f"{program} cannot be started: {why}", hint=hint))
    if ended.memory.killed:
        # A limit that it reached while loading it would reach again; later it depends on what it is asked.
        hopeless = ended.memory.by_limit and not served
        fact = Fact.BROKEN if hopeless else Fact.EXITED
        return End(fact, kind(_memory_cause(engine.title, ended.memory, plan.settings.limits), hint=MORE_MEMORY))
    if ended.guard_lost:
        return End(Fact.EXITED, kind(f"{engine.title} was killed together with its guard process", hint=SEE_LOGS))
    explanation = engine.explain_exit(ended.code, tail)
    if not memory_kills:
        explanation = causes.not_for_memory(engine.title, explanation)
    # What it printed while serving may look like a hopeless start, but it has started once: try again.
    hopeless = not served and not explanation.retry
    fact = Fact.BROKEN if hopeless else Fact.EXITED
    return End(fact, kind(explanation.cause, hint=explanation.hint or SEE_LOGS))


def _memory_cause(title: str, memory: Deaths, limits: Limits) -> str:
    """A sentence about the kernel having killed it for memory."""
    if not memory.by_limit:
        return f"{title} was ended by the kernel because the machine, or the whole service, had no memory left"
    size = ""
    if limits.memory:
        size = f" of {limits.memory / 2**30:.3g} GiB" if limits.memory >= 1 << 30 else f" of {limits.memory >> 20} MiB"
    return f"{title} reached its host memory limit{size} and was ended by the kernel"
