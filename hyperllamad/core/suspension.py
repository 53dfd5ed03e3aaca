"""What becomes of the models when the machine goes to sleep, and when it is back: pure decisions, no time in them.

What lies in the machine's own memory is there again afterwards.  What lies in a GPU's is not, unless its driver saves
it: such a model sleeps (its weights go to the machine's memory) where its engine can, and is unloaded where not.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hyperllamad.core.actions import View
from hyperllamad.core.instance import State
from hyperllamad.core.models import Key

_PRESENT = frozenset({State.READY, State.STARTING, State.WAKING, State.BACKOFF})  # wanted: it will be here again


class Rest(enum.Enum):
    """How an instance spends the time."""

    STAY = enum.auto()  # as it is
    SLEEP = enum.auto()  # after its requests
    UNLOAD = enum.auto()  # after its requests


@dataclass(frozen=True, slots=True)
class Share:
    """How the time until the machine sleeps is used.  Seconds."""

    finish: float  # requests may end by themselves
    give_way: float  # then they are cut off, and engines get this to end


def shares(within: float) -> Share:
    """Of the time that the inhibitor lock gives, a tenth is kept back: who is late has the machine sleep under it."""
    usable = 0.9 * max(0.0, within)
    return Share(finish=0.6 * usable, give_way=0.4 * usable)


def before(
    views: Iterable[View], on_gpu: Collection[Key], *, can_sleep: Collection[Key], kept: bool
) -> dict[Key, Rest]:
    """What to tell each instance now.

    `on_gpu` are those that lie on GPUs, `can_sleep` those whose engine can give its memory up; `kept`: the driver saves
    the memory of GPUs by itself.

    1. It does not lie on a GPU, or the driver saves it: it stays.
    2. It is ready and can sleep: it sleeps.
    3. It sleeps already, or leaves: it stays as it is.
    4. Anything else, loading included, would be damaged: it is unloaded.
    """
    found = {}
    for view in views:
        if kept or view.key not in on_gpu:  # 1
            found[view.key] = Rest.STAY
        elif view.state is State.READY and view.key in can_sleep:  # 2
            found[view.key] = Rest.SLEEP
        elif view.state not in _PRESENT:  # 3
            found[view.key] = Rest.STAY
        else:  # 4
            found[view.key] = Rest.UNLOAD
    return found


def restless(views: Iterable[View], told: Mapping[Key, Rest]) -> list[Key]:
    """Who was told to rest and does not yet."""
    states = {view.key: view.state for view in views}
    resting = {State.GONE, State.ASLEEP, State.FAILED}
    return [key for key, rest in told.items() if rest is not Rest.STAY and states.get(key, State.GONE) not in resting]


def rested(views: Iterable[View], told: Mapping[Key, Rest]) -> bool:
    """Whether everybody rests who was told to."""
    return not restless(views, told)


def back(views: Iterable[View]) -> dict[Key, float]:
    """Who should be here again afterwards, and for how many seconds each was to stay after a request."""
    return {view.key: view.keep_alive for view in views if view.state in _PRESENT}
