"""What requests are told: a lease, a refusal, or nothing yet.

Owns the queue and the open leases; must not know memory, placements or who leaves for whom.  It reads the instances
and counts their leases, but no step of one is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping

from hyperllamad.core.actions import Action, Grant, Refuse
from hyperllamad.core.errors import BusyError, HyperLlamaError
from hyperllamad.core.instance import State
from hyperllamad.core.journal import Journal
from hyperllamad.core.models import Key
from hyperllamad.core.patience import Patience
from hyperllamad.core.queue import Queue, Wish, yields
from hyperllamad.core.slot import Slot


class Service:
    """Mutable; only the fleet holds one."""

    def __init__(self, slots: Mapping[Key, Slot], journal: Journal, patience: Patience, *, longest: int) -> None:
        """`slots` are the fleet's own, as they are at any moment; `longest` requests may wait for each model."""
        self._slots = slots
        self._journal = journal
        self._patience = patience
        self.queue = Queue(longest=longest)
        self.leases: dict[int, Key] = {}  # granted and not yet released
        self.paused = False  # nobody is granted anything

    def retune(self, patience: Patience, longest: int, now: float) -> None:
        """Other numbers from now on; who waits already does so no longer than one who comes now."""
        self._patience = patience
        self.queue.retune(longest)
        self.queue.hasten(patience.request_deadline(now))

    # -- requests come and go --------------------------------------------------------------------------------------

    def join(self, wish: Wish, now: float) -> list[Action]:
        """It joins its model's queue; if that is full, it or one of a client who waits with more is refused."""
        out: list[Action] = []
        if self._answers_at_once(wish.key, now) or self._make_way(wish, now, out):
            self.queue.join(wish, now)
        return out

    def end(self, lease: int, now: float) -> Key | None:
        """The request is over, served or not; returns whose lease it had, None if it had none."""
        self.queue.leave(lease)
        self.queue.end(lease, now)
        return self.leases.pop(lease, None)

    def cut(self, key: Key, now: float) -> None:
        """The leases of an instance have ended before their requests."""
        for lease in [lease for lease, used in self.leases.items() if used == key]:
            del self.leases[lease]
            self.queue.end(lease, now, served=False)

    # -- answers ---------------------------------------------------------------------------------------------------

    def serve(self, now: float) -> list[Action]:
        """Answer whoever waits for an instance that is ready or has failed, and whoever has waited too long."""
        out: list[Action] = []
        for head in self.queue.models():
            slot = self._slots.get(head.key)
            if slot is not None and slot.state is State.READY:
                out += [] if self.paused else self._grant(slot, now)
            elif slot is not None and (error := slot.refusal(now)):
                out += self.refuse(slot.key, error)
        for wish in self.queue.oldest_first():
            if wish.deadline > now:
                break
            slot = self._slots.get(wish.key)
            error = self._patience.too_late(slot.instance if slot is not None else None)
            self._journal.tell("refused", wish.key, error.message, now)
            out.append(self._dismiss(wish, error))
        return out

    def refuse(self, key: Key, error: HyperLlamaError) -> list[Action]:
        """Whoever waits for the model."""
        return [self._dismiss(wish, _copy(error)) for wish in self.queue.of(key)]

    def refuse_everybody(self, error: HyperLlamaError) -> list[Action]:
        """Whoever waits for anything."""
        return [self._dismiss(wish, _copy(error)) for wish in self.queue.oldest_first()]

    def _grant(self, slot: Slot, now: float) -> list[Action]:
        out: list[Action] = []
        while wish := self.queue.next(slot.key, slot.terms, now):
            self.queue.grant(wish)
            slot.grant(now, wish.keep_alive)
            self.leases[wish.lease] = slot.key
            out.append(Grant(wish.lease, slot.key))
        return out

    def _dismiss(self, wish: Wish, error: HyperLlamaError) -> Refuse:
        self.queue.leave(wish.lease)
        return Refuse(wish.lease, error)

    # -- the bound of a queue --------------------------------------------------------------------------------------

    def _answers_at_once(self, key: Key, now: float) -> bool:
        slot = self._slots.get(key)
        if slot is None or slot.refusal(now) is not None:
            return slot is not None
        parallel = slot.terms.parallel
        free = not parallel or slot.instance.leases < parallel
        return slot.state is State.READY and free and not self.queue.waits(key)

    def _make_way(self, wish: Wish, now: float, out: list[Action]) -> bool:
        """Whether the request may join its queue: there is room, or somebody with more in it gave way."""
        full = self.queue.overflow(wish.key, wish.client, wish.weight)
        if full is None:
            return True
        loser = yields(full)
        out_of = wish if loser is None else self.queue.youngest(wish.key, loser)
        why = f"the queue of {sum(full.waiting.values())} is full"
        self._journal.tell("refused", wish.key, why, now, (full, loser))
        self.queue.leave(out_of.lease)
        out.append(Refuse(out_of.lease, BusyError(retry_after=self._pause(wish.key, now))))
        return loser is not None

    def _pause(self, key: Key, now: float) -> float | None:
        """Seconds until a request that came now would be served, as far as is known."""
        slot = self._slots.get(key)
        arriving = slot is not None and slot.state in {State.WAITING, State.STARTING}
        left = max(1.0, slot.terms.load_seconds - (now - slot.since)) if slot is not None and arriving else 0.0
        pace = self.queue.pause(key, now)
        return left + (pace or 0.0) if left or pace else None


def _copy(error: HyperLlamaError) -> HyperLlamaError:
    """The same error for another request: one object raised in many tasks would chain all their tracebacks."""
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    return copy
