"""What the fleet says: the actions it orders, and an instance as people see it.  Plain data, nothing decided here.

Match them by keywords, `case Changed(key=key)`: for positions Python makes the name of `__match_args__` anew each time,
and keeps up to 4,096 of those (its cache of methods), which fill up over hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.instance import Effect, State
from hyperllamad.core.models import Key, Placement


@dataclass(frozen=True, slots=True)
class Grant:
    """The request may use the instance until it releases the lease."""

    lease: int
    key: Key


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request will not be served; the error object is this request's own and may be raised."""

    lease: int
    error: HyperLlamaError


@dataclass(frozen=True, slots=True)
class Do:
    """Something to be done to the child of an instance, or (CUT) to its leases."""

    key: Key
    effect: Effect
    level: int = 0  # SLEEP: how deep; 1 keeps the weights in host memory, 2 drops them


@dataclass(frozen=True, slots=True)
class Changed:
    """An instance is in another state; comes before the effects of that step."""

    key: Key
    state: State


Action = Grant | Refuse | Do | Changed


@dataclass(frozen=True, slots=True)
class View:
    """One instance as people see it.  Times are monotonic seconds."""

    key: Key
    state: State
    leases: int
    waiting: int  # requests that wait for it
    crashes: int  # those that still count
    since: float  # of the state
    expires_at: float | None  # inf = never, None = not known (arriving, failed), in the past = is going
    error: HyperLlamaError | None  # why it failed, or why it last crashed
    keep_alive: float  # seconds; inf = for ever
    placement: Placement | None = None  # where it lies or will lie
    level: int = 0  # of its sleep
    clients: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # requests running and waiting, of each
    pinned: bool = False
    sleep_levels: tuple[int, ...] = ()  # at which it could sleep, best first
