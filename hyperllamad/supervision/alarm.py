"""The one timer: sleeps until the fleet's next deadline, and is woken when that has come nearer.

Must not know what is due: it asks when to call, and calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio


class Alarm:
    """run() in a task; nothing wakes it while nothing is timed."""

    def __init__(
        self, clock: Callable[[], float], deadline: Callable[[], float | None], ring: Callable[[], None]
    ) -> None:
        """`deadline` says when to `ring` on `clock`, in seconds; None = not while things are as they are."""
        self._clock = clock
        self._deadline = deadline
        self._ring = ring
        self._wake = anyio.Event()
        self._went_round = anyio.Event()
        self.sleeps_until = math.inf

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            deadline = self._deadline()
            self.sleeps_until = math.inf if deadline is None else deadline
            with anyio.move_on_after(None if deadline is None else deadline - self._clock()):
                await self._wake.wait()
            self._wake = anyio.Event()
            self._ring()
            self._went_round.set()
            self._went_round = anyio.Event()

    def look(self) -> None:
        """The deadline may have come nearer."""
        deadline = self._deadline()
        if deadline is not None and deadline < self.sleeps_until:
            self._wake.set()

    async def pulse(self) -> None:
        """Until it has gone round once more, which it does at once: returns only while run() runs."""
        self._wake.set()
        await self._went_round.wait()
