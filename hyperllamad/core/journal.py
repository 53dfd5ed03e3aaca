"""Decisions as they are made, until somebody takes them; says nothing twice in a row that has not changed.

Owns the records of one fleet; must not know why anything is decided.
"""

from __future__ import annotations

from hyperllamad.core.models import Key
from hyperllamad.core.records import Inputs, Outcome, Record


class Journal:
    """Mutable; only the fleet holds one."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._waits: dict[Key, str] = {}  # why each model waits, as it was told last

    def tell(self, what: str, key: Key, why: str, now: float, decision: tuple[Inputs, Outcome] | None = None) -> None:
        """A decision, with what it was made from and what it was; None = nothing was weighed."""
        if what == "waits":
            if self._waits.get(key) == why:
                return
            self._waits[key] = why
        else:
            self._waits.pop(key, None)
        inputs, outcome = decision or (None, None)
        self._records.append(Record(now, what, str(key), why, inputs, outcome))

    def take(self) -> list[Record]:
        """Everything since the last call."""
        taken, self._records = self._records, []
        return taken
