"""What is to happen in a made-up world, and when: in the order of time, and of asking where times are equal."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable


class Agenda:
    def __init__(self) -> None:
        self._todo: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def add(self, when: float, what: Callable[[], None]) -> None:
        """math.inf = never."""
        if when < math.inf:
            heapq.heappush(self._todo, (when, next(self._numbers), what))

    def soonest(self) -> float:
        """When something is to happen next; math.inf = nothing is."""
        return self._todo[0][0] if self._todo else math.inf

    def happen(self) -> None:
        """The next thing, now."""
        heapq.heappop(self._todo)[2]()
