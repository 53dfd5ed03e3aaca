"""The fleet's decisions as people and programs read them: a bounded ring, a line of the log each, and watchers.

Owns the ring; must not know why anything was decided.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from hyperllamad.core.models import Key
from hyperllamad.core.records import Record
from hyperllamad.supervision.broadcast import Broadcast, Watch
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.decisions")

KEPT = 1000
_LOUD = {"failed": logging.WARNING, "waits": logging.DEBUG}


class Event:
    """A record, with the time of day and the model's name."""

    __slots__ = ("at", "name", "record", "why")

    def __init__(self, at: float, name: str, why: str, record: Record) -> None:
        self.at = at  # Unix seconds
        self.name = name
        self.why = why  # the record's, with names in place of keys
        self.record = record


class Events:
    """add() what the fleet tells; read it any time."""

    def __init__(self) -> None:
        self._ring: deque[Event] = deque(maxlen=KEPT)
        self._news: Broadcast[Event] = Broadcast()

    def add(self, records: Sequence[Record], name: Callable[[str], str], to_unix: float) -> None:
        """`name` gives the model of a key as text; `to_unix` is what to add to the fleet's time."""
        for record in records:
            event = Event(record.at + to_unix, name(record.key), _named(record.why, name), record)
            self._ring.append(event)
            self._news.send(event)
            level = _LOUD.get(record.what, logging.INFO)
            log.log(level, "%s: %s", record.what, event.why, extra=fields(model=event.name, instance=record.key))

    def last(self, count: int, instance: Key | None = None, name: str = "") -> list[Event]:
        """The newest ones, oldest first: all, or those about an instance or a model's name."""
        mine = [
            event
            for event in self._ring
            if (instance is None and not name) or event.record.key == str(instance) or (name and event.name == name)
        ]
        return mine[max(0, len(mine) - count) :]

    def watch(self) -> Watch[Event]:
        """Every event from now on; use it as a context manager."""
        return self._news.watch()

    def close(self) -> None:
        """Nothing more will come."""
        self._news.close()


def _named(why: str, name: Callable[[str], str]) -> str:
    """Keys in a sentence are for programs."""
    return " ".join(name(word) if "-" in word and len(word) == KEY_LENGTH else word for word in why.split(" "))


KEY_LENGTH = 25  # of str(Key)
