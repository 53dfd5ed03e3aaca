"""The instances that are there, and the books that are kept about every step one of them takes.

Owns who is there, their reservations' steps and the record of their crashes; must not know the queue, nor why an
instance is told to take a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hyperllamad.core.actions import Action, Changed, Do
from hyperllamad.core.admission import Admission
from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.instance import Effect, Fact, Order, State
from hyperllamad.core.journal import Journal
from hyperllamad.core.models import Key, Placement, Terms
from hyperllamad.core.patience import Patience
from hyperllamad.core.records import Crash
from hyperllamad.core.slot import Slot


class Roster:
    """Mutable; only the fleet holds one.  Every step comes back as actions, in the order to do them."""

    def __init__(
        self,
        slots: dict[Key, Slot],
        admission: Admission,
        journal: Journal,
        patience: Patience,
        *,
        cut: Callable[[Key, float], None],
    ) -> None:
        """`cut` is told when the leases of an instance end with a step of it."""
        self.slots = slots
        self._admission = admission
        self._journal = journal
        self._patience = patience
        self._cut = cut
        self._sleepless: set[Key] = set()  # those that did not fall asleep or wake as they should

    def retune(self, patience: Patience) -> None:
        """Other times from now on.  Instances that are there keep those they began with."""
        self._patience = patience

    def get(self, key: Key) -> Slot | None:
        """The instance of `key`, if there is one."""
        return self.slots.get(key)

    def named(self, text: str) -> Slot:
        """The one whose key reads so: placement knows them by that."""
        return next(slot for slot in self.slots.values() if str(slot.key) == text)

    def add(self, key: Key, keep_alive: float, now: float) -> Slot:
        """A new instance, WAITING; for a key that has none."""
        slot = self.slots[key] = Slot(key, self._patience, keep_alive, since=now, last_used=now)
        return slot

    def settle_in(self, slot: Slot, terms: Terms, placement: Placement | None) -> None:
        """From now on it goes by these terms, and lies there once it starts or wakes."""
        slot.terms = terms if slot.key not in self._sleepless else replace(terms, sleep_levels=())
        slot.placement = placement

    def apply(
        self, slot: Slot, event: Order | Fact, now: float, *, error: HyperLlamaError | None = None
    ) -> list[Action]:
        """Let something happen to an instance; `error` explains a fact."""
        before, effects = slot.state, slot.on(event, now, error=error)
        return self._follow(slot, before, effects, now)

    def release(self, slot: Slot, now: float) -> list[Action]:
        """One lease of it less."""
        before, effects = slot.state, slot.release(now)
        return self._follow(slot, before, effects, now)

    def _follow(self, slot: Slot, before: State, effects: tuple[Effect, ...], now: float) -> list[Action]:
        """Keep the books after a step of one instance; returns the step as actions."""
        if Effect.CUT in effects:
            self._cut(slot.key, now)
        self._admission.account(slot, effects, now)
        self._explain(slot, before, now)
        if before in {State.SLEEPING, State.WAKING} and Effect.KILL in effects:
            self._sleepless.add(slot.key)
        if slot.state is State.GONE:
            del self.slots[slot.key]
        out: list[Action] = [] if slot.state is before else [Changed(slot.key, slot.state)]
        out += [Do(slot.key, effect, slot.level if effect is Effect.SLEEP else 0) for effect in effects]
        return out

    def _explain(self, slot: Slot, before: State, now: float) -> None:
        """Record what a crash led to."""
        if slot.state is before or slot.state not in {State.BACKOFF, State.FAILED}:
            return
        crash = Crash(slot.instance.crashes, self._patience.restart_budget)
        counted = slot.state is State.BACKOFF or crash.crashes > crash.budget
        why = str(slot.error) if slot.error else "the engine ended"
        what = "restarted" if slot.state is State.BACKOFF else "failed"
        self._journal.tell(what, slot.key, why, now, (crash, what) if counted else None)
