"""When memory is measured: before the first request, once an engine is loaded, while somebody waits for room, and
while a GPU's is to come back from one who has ended.

Owns the pace of it; must not know what is decided by a measurement, nor what is learned of it (accounts.py).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import anyio
import anyio.abc

from hyperllamad.core.actions import Action
from hyperllamad.core.fleet import Fleet
from hyperllamad.core.models import Key
from hyperllamad.supervision.accounts import Accounts
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.supervision")

PAUSE = 0.2  # seconds between two measurements, while somebody waits for memory


class Weighing:
    """measure() at any time; look() after every event."""

    def __init__(
        self,
        fleet: Fleet,
        accounts: Accounts,
        clock: Callable[[], float],
        *,
        guards: Callable[[], Mapping[Key, int]],
        feed: Callable[[Sequence[Action]], None],
    ) -> None:
        """`guards` are the processes above each engine; `feed` is given what follows from a measurement."""
        self._fleet = fleet
        self._accounts = accounts
        self._clock = clock
        self._guards = guards
        self._feed = feed
        self._under_way = False
        self._measured_at = -math.inf

    async def measure(self, loaded: Key | None = None) -> None:
        """Tell the fleet what memory there is, and see what somebody who has just `loaded` took."""
        began = self._measured_at = self._clock()
        measured = await self._accounts.read(self._guards(), began, loaded)
        before = self._fleet.missing
        self._feed(self._fleet.measure(measured, self._clock()))
        for one in self._fleet.missing:
            if one not in before:
                log.warning(
                    "GPU memory has not come back", extra=fields(instance=one.key, gpu=one.device, bytes=one.bytes)
                )

    def look(self, tasks: anyio.abc.TaskGroup) -> None:
        """Measure soon, in one of the `tasks`, if somebody waits for that."""
        wanted = self._fleet.needs_measure or self._fleet.owed or self._accounts.curious
        if wanted and not self._under_way:
            self._under_way = True
            tasks.start_soon(self._measure_soon, tasks)

    async def _measure_soon(self, tasks: anyio.abc.TaskGroup) -> None:
        """Not more often than it can change anything."""
        try:
            await anyio.sleep(max(0.0, self._measured_at + PAUSE - self._clock()))
            await self.measure()
        finally:
            self._under_way = False
        self.look(tasks)
