"""Whether there is memory and a place: for a newcomer, and for one who was promised them.

Owns the ledger, and the turning of instances into the question that placement answers; changes no instance.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hyperllamad.core.instance import Effect, State
from hyperllamad.core.ledger import Ledger, Measured
from hyperllamad.core.models import Key, Terms
from hyperllamad.core.question import Question
from hyperllamad.core.slot import Slot


@dataclass(frozen=True, slots=True)
class Rules:
    """What is configured about memory.  Bytes."""

    measured: bool = False  # somebody measures memory; False = only places count
    gpu_overhead: int = 0  # of every GPU, left alone
    spread: bool = False  # models lie on as many GPUs as they can
    sleep_memory: int = 0  # host memory for the weights of instances asleep


class Admission:
    """Mutable (the ledger is); only the fleet holds one."""

    def __init__(self, slots: Mapping[Key, Slot], rules: Rules, max_models: int) -> None:
        """`slots` are the fleet's own, as they are at any moment."""
        self._slots = slots
        self._rules = rules
        self._max_models = max_models
        self.ledger = Ledger(gpu_overhead=rules.gpu_overhead)
        self.needs_measure = False  # somebody cannot be placed or started before memory is measured

    # -- events ----------------------------------------------------------------------------------------------------

    def retune(self, rules: Rules, max_models: int) -> None:
        """Other rules from now on; who has a place keeps it."""
        self._rules = rules
        self._max_models = max_models
        self.ledger.retune(gpu_overhead=rules.gpu_overhead)

    def measure(self, measured: Measured, now: float) -> None:
        """Memory was measured."""
        self.needs_measure = False
        self.ledger.measure(measured, now)

    def account(self, slot: Slot, effects: tuple[Effect, ...], now: float) -> None:
        """An instance took a step: its reservation follows."""
        if Effect.SPAWN in effects and slot.reservation is None and slot.placement is not None:
            slot.reservation = self.ledger.reserve(slot.key, slot.placement)
        if slot.reservation is None:
            return
        if slot.state in {State.GONE, State.FAILED}:
            self.ledger.end(slot.reservation, now)
            slot.reservation = None
            self._look_for_the_promised()
        elif slot.state is State.ASLEEP:
            self.ledger.sleep(slot.reservation, slot.terms.need.asleep, now)
            self._look_for_the_promised()
        elif slot.state is State.WAKING:
            self.ledger.wake(slot.reservation)

    def _look_for_the_promised(self) -> None:
        """Memory was given up: who has a promise may start once it is measured free."""
        if self._rules.measured and any(slot.promised for slot in self._slots.values()):
            self.needs_measure = True

    # -- a newcomer ------------------------------------------------------------------------------------------------

    def known(self, now: float) -> bool:
        """Whether somebody may be placed by what is known; else it must be measured first."""
        if not self._rules.measured or self.ledger.fresh(now):
            return True
        self.needs_measure = True
        return False

    def measured_since(self, at: float) -> bool:
        """Whether what is known is at least so new, for a refusal should not rest on what was; else it is measured."""
        if self.ledger.measured_since(at):
            return True
        self.needs_measure = True
        return False

    def look_again(self) -> None:
        """Somebody waits for what others hold, and they need not be ours."""
        self.needs_measure = self._rules.measured

    def question(
        self, key: Key, terms: Terms, now: float, *, older: Collection[Key], waited: Collection[Key]
    ) -> Question:
        """Everything that decides where `key` lies.

        `older` are the models that older requests wait for, `waited` those that any wait for.
        """
        slot = self._slots.get(key)
        lies = slot.placement.shares if slot is not None and slot.state is State.ASLEEP and slot.placement else ()
        tenants = [
            other.tenant(evictable=_evictable(other, older, now), waited=other.key in waited)
            for other in self._slots.values()
            if other.key != key and other.state is not State.FAILED
        ]
        return Question(
            newcomer=str(key),
            need=terms.need,
            places=self._max_models,
            rooms=self.ledger.rooms(gpu=terms.gpu) if self._rules.measured else (),
            tenants=tuple(tenants),
            now=now,
            spread=self._rules.spread,
            sleep_memory=self.sleep_memory(),
            coming=sum(slot.host_coming(now) for slot in self._slots.values()),
            lies=lies,
        )

    # -- one with a promise ----------------------------------------------------------------------------------------

    def has_room(self, slot: Slot, now: float) -> bool:
        """Whether it may start or wake now."""
        if self._all_taken():
            return False
        if not self._rules.measured or not slot.devices:
            return True
        if not self.known(now) or self._starts_beside(slot):
            return False
        fits = self._fits(slot)
        if not fits and not self._moves(slot):
            self.needs_measure = True
        return fits

    def stuck(self, slot: Slot, now: float) -> bool:
        """Whether its promise cannot come true by waiting: nobody on its devices leaves, starts or has just ended."""
        if not slot.devices or not self.ledger.fresh(now) or self._all_taken() or self._starts_beside(slot):
            return False
        return not self._fits(slot) and not self._moves(slot) and not self.ledger.awaits(slot.devices, now)

    def taken(self) -> int:
        """Places in use now: a start needs one that is not."""
        return sum(slot.takes_place for slot in self._slots.values())

    def _all_taken(self) -> bool:
        return self.taken() >= self._max_models

    def _fits(self, slot: Slot) -> bool:
        """Into what was measured free, and nobody else may still take."""
        has = slot.reservation
        return all(
            self.ledger.free(share.device) + (has.holds(share.device) if has else 0) >= share.bytes
            for share in (slot.placement.shares if slot.placement else ())
        )

    def _starts_beside(self, slot: Slot) -> bool:
        """Whether another one starts on the same device, and one of both sizes itself by what is free."""
        return any(
            other.state in {State.STARTING, State.WAKING} and not slot.devices.isdisjoint(other.devices)
            for other in self._slots.values()
            if other is not slot and (slot.terms.need.exclusive_start or other.terms.need.exclusive_start)
        )

    def _moves(self, slot: Slot) -> bool:
        """Whether somebody leaves one of its devices, which will be heard of."""
        others = (other for other in self._slots.values() if other is not slot and other.instance.leaving)
        return any(not slot.devices.isdisjoint(other.devices) for other in others)

    # -- sleep -----------------------------------------------------------------------------------------------------

    def sleep_memory(self) -> int:
        """Host memory that is left for the weights of those who sleep."""
        return self._rules.sleep_memory - sum(slot.host_taken for slot in self._slots.values())

    def overdrawn(self) -> list[Slot]:
        """Who must not go on sleeping because the budget was made smaller: as few as possible, longest unused first."""
        if (left := self.sleep_memory()) >= 0:
            return []
        over = -left - sum(slot.host_taken for slot in self._slots.values() if slot.state is State.STOPPING)
        found: list[Slot] = []
        for slot in sorted(self._slots.values(), key=lambda slot: slot.last_used):
            if over > 0 and slot.state is State.ASLEEP and slot.host_taken and not slot.called:
                found.append(slot)
                over -= slot.host_taken
        return found


def _evictable(slot: Slot, older: Collection[Key], now: float) -> bool:
    """Whether it may be sent away for another.

    Not one that is still arriving, or two models could evict each other for ever without serving anybody; and not one
    that an older request waits for, unless it has had the time that its coming was worth.
    """
    if not slot.instance.evictable or slot.terms.pinned or slot.called:
        return False
    return slot.key not in older or slot.tenure_ends() <= now < math.inf
