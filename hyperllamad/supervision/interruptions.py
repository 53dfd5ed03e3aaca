"""What befalls the machine under the models: GPUs that are lost and found, and sleep.  Becomes the fleet's events.

Decides nothing: which GPUs may be used is core/gpu_health.py's, who rests during a sleep core/suspension.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hyperllamad.core.actions import View
from hyperllamad.core.fleet import Fleet
from hyperllamad.core.models import Key, Model
from hyperllamad.core.suspension import Rest
from hyperllamad.supervision.performer import Performer


@dataclass(frozen=True, slots=True)
class Standing:
    """Everybody as they are at one moment."""

    views: tuple[View, ...]
    on_gpu: frozenset[Key]
    can_sleep: Mapping[Key, int]  # at that level
    models: Mapping[Key, Model]


class Interruptions:
    """The supervisor holds one."""

    def __init__(self, fleet: Fleet, performer: Performer, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._performer = performer
        self._clock = clock
        self.paused = False

    # -- GPUs ------------------------------------------------------------------------------------------------------

    def lose(self, device: str, why: str) -> None:
        """A GPU can no longer be used: whoever lies there leaves at once, and its requests are served elsewhere."""
        for view in self.views():
            if view.placement is not None and any(share.device == device for share in view.placement.shares):
                self._performer.crew.fail(view.key, why)
        self._performer.feed(self._fleet.lose(device, why, self._clock()))

    # -- sleep -----------------------------------------------------------------------------------------------------

    def pause(self) -> Standing:
        """Nobody is granted a lease, started or woken any more, until resume(); requests wait."""
        self.paused = True
        self._performer.feed(self._fleet.pause(self._clock()))
        plans = self._performer.crew.plans
        views = self.views()
        return Standing(
            views=views,
            on_gpu=frozenset(view.key for view in views if plans[view.key].settings.device == "cuda"),
            can_sleep={view.key: view.sleep_levels[0] for view in views if view.sleep_levels},
            models={view.key: plans[view.key].model for view in views},
        )

    def resume(self) -> None:
        """All goes on."""
        self.paused = False
        self._performer.feed(self._fleet.resume(self._clock()))

    def rest(self, key: Key, rest: Rest, level: int, why: str) -> None:
        """Tell one instance what to do after its requests; `level` is how deep it is to sleep."""
        now = self._clock()
        if rest is Rest.SLEEP:
            self._performer.feed(self._fleet.put_to_sleep(key, level, why, now))
        elif rest is Rest.UNLOAD:
            self._performer.feed(self._fleet.unload(key, now, why=why))

    def cut(self, key: Key, why: str) -> None:
        """Unload one at once; its streams end for that reason, and may go on elsewhere."""
        self._performer.crew.fail(key, why)
        self._performer.feed(self._fleet.unload(key, self._clock(), cut=True, why=why))

    def views(self) -> tuple[View, ...]:
        """Every instance as it is now."""
        return self._fleet.views(self._clock())
