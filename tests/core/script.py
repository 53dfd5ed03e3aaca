"""What a random world is told to do: plain data, so that a failing one can be shrunk and read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hyperllamad.core.instance import Fact
from hyperllamad.core.models import Key, Terms


@dataclass(frozen=True)
class Ask:
    """A client: comes `at`, keeps its lease for `use`, but hangs up after `bears` whatever happens."""

    at: float
    key: Key
    use: float
    bears: float
    keep_alive: float | None
    client: str = ""
    taken_in: float = 0.0  # so long after its grant its engine says that it has taken it in; math.inf = never


@dataclass(frozen=True)
class Birth:
    """What becomes of one child.  Seconds after its spawn, or after the signal; math.inf = never."""

    ready: float = 5.0
    turns: float = math.inf  # when `how` becomes true of it
    how: Fact = Fact.EXITED  # or BROKEN, SICK
    obeys: float = 1.0  # exits after TERM
    dies: float = 0.1  # exits after KILL
    sleeps: float = 1.0  # after SLEEP
    wakes: float = 1.0  # after WAKE
    keeps_well: bool = True  # False: it does not come back from sleep as it was
    takes: float = 1.0  # of what was reserved for it; more than 1 = it lies
    frees: float = 0.0  # its memory comes back so long after its end
    lags: float = 0.0  # and so long after it fell asleep


@dataclass(frozen=True)
class Meddling:
    """An administrator, or late news: `what` is unload, cut, retry, keep, reload or the name of a Fact."""

    at: float
    what: str
    key: Key
    keep_alive: float = 0.0
    load_timeout: float = 60.0  # from a reload on


@dataclass(frozen=True)
class Foreign:
    """From `at` on somebody else holds `bytes` of every device."""

    at: float
    bytes: int


@dataclass(frozen=True)
class Script:
    """One world: how the fleet is configured and what happens to it.  Times are seconds after the start."""

    max_models: int = 2
    max_queue: int = 8
    keep_alive: float = 30.0
    restart_budget: int = 1
    lag: float = 0.0  # by which every tick comes too late
    asks: tuple[Ask, ...] = ()
    births: tuple[Birth, ...] = (Birth(),)  # taken in turn
    meddling: tuple[Meddling, ...] = ()
    close_at: float = math.inf
    # Of worlds in which memory is counted:
    devices: tuple[int, ...] = ()  # bytes of each GPU
    terms: tuple[Terms, ...] = ()  # of A, B, C and D
    foreign: tuple[Foreign, ...] = ()
    sleep_memory: int = 0
    spread: bool = False
    meter: float = 0.1  # seconds a measurement takes
