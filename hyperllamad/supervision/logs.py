"""The last lines each engine printed, kept for a while after its end."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import NamedTuple

from hyperllamad.core.models import Key
from hyperllamad.core.names import ModelName
from hyperllamad.supervision.broadcast import Broadcast, Watch

MOST_LINES = 2000
MOST_CHARACTERS = 1 << 20  # of one instance: a flood of long lines must not eat the daemon's memory
KEPT_AFTER_END = 16  # instances


class Line(NamedTuple):
    """`at` is Unix seconds."""

    at: float
    text: str


class Ring:
    """The last lines of one instance, through all its restarts."""

    def __init__(self) -> None:
        self.names: set[str] = set()  # ModelName.key of every name it was asked for by
        self.ended = False
        self._lines: deque[Line] = deque()
        self._characters = 0
        self._followers: Broadcast[Line] = Broadcast()

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines)

    def append(self, text: str, at: float | None = None) -> None:
        line = Line(time.time() if at is None else at, text)
        self._lines.append(line)
        self._characters += len(text)
        while len(self._lines) > MOST_LINES or self._characters > MOST_CHARACTERS:
            self._characters -= len(self._lines.popleft().text)
        self._followers.send(line)

    def last(self, count: int) -> list[str]:
        """The text of the last `count` lines, oldest first."""
        start = max(0, len(self._lines) - count)
        return [line.text for line in list(self._lines)[start:]]

    def follow(self) -> Watch[Line]:
        """Lines from now on, until the instance ends; use it as a context manager."""
        watch = self._followers.watch()
        if self.ended:
            self._followers.close()
        return watch

    def end(self) -> None:
        self.ended = True
        self._followers.close()


class LogBook:
    """A ring for every instance, and for the last few that have ended."""

    def __init__(self) -> None:
        self._rings: OrderedDict[Key, Ring] = OrderedDict()  # the one opened last at the end

    def open(self, key: Key) -> Ring:
        """The ring of an instance that is being started, again or for the first time."""
        ring = self._rings.setdefault(key, Ring())
        self._rings.move_to_end(key)
        ring.ended = False
        return ring

    def get(self, key: Key) -> Ring | None:
        return self._rings.get(key)

    def find(self, name: ModelName) -> Ring | None:
        """The ring of the instance last started under that name."""
        return next((ring for ring in reversed(self._rings.values()) if name.key in ring.names), None)

    def end(self, key: Key) -> None:
        """The instance is over: its followers end; the oldest of those that are over go."""
        if key in self._rings:  # it need not have come to a start
            self._rings[key].end()
        over = [key for key, ring in self._rings.items() if ring.ended]
        for old in over[:-KEPT_AFTER_END]:
            del self._rings[old]
