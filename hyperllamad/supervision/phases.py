"""How long each phase of one load took: the record that says what to make faster.  Seconds of a monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Phases:
    """The phase that is on, and what those before it took.  A phase that comes again is added to."""

    def __init__(self, first: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.current = first  # "" once all is over
        self._clock = clock
        self._since = clock()
        self._took: dict[str, float] = {}

    def enter(self, phase: str) -> bool:
        """Begin another; False when it is the one that is on, or all is over already."""
        if not self.current or phase == self.current:
            return False
        now = self._clock()
        self._took[self.current] = self._took.get(self.current, 0.0) + now - self._since
        self.current, self._since = phase, now
        return True

    def end(self) -> None:
        self.enter("")

    @property
    def took(self) -> Mapping[str, float]:
        """By phase, in the order in which they came; the one that is on with its time so far."""
        so_far = {self.current: self._took.get(self.current, 0.0) + self._clock() - self._since} if self.current else {}
        return self._took | so_far

    def __str__(self) -> str:
        return ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in self.took.items())
