"""How a model that is waited for gets to be served: a promise of a place, the leaving of others, its start or waking.

Owns those decisions; where it lies and for whom others leave is placement's, whether there is room now admission's.
Must not know whose requests wait, beyond how old they are.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from hyperllamad.core.actions import Action, Changed
from hyperllamad.core.admission import Admission
from hyperllamad.core.errors import NoRoomError
from hyperllamad.core.instance import Order, State
from hyperllamad.core.journal import Journal
from hyperllamad.core.models import Key
from hyperllamad.core.placement import decide
from hyperllamad.core.question import STOP, Answer, Never, Placed, Question, Soon, Waits
from hyperllamad.core.queue import Wish
from hyperllamad.core.roster import Roster
from hyperllamad.core.service import Service
from hyperllamad.core.slot import Slot


class Arrivals:
    """Mutable; only the fleet holds one."""

    def __init__(
        self, roster: Roster, service: Service, admission: Admission, journal: Journal, *, keep_alive: float
    ) -> None:
        """`keep_alive` in seconds: of an instance whose request states none."""
        self._roster = roster
        self._service = service
        self._admission = admission
        self._journal = journal
        self._keep_alive = keep_alive
        self._waited: Collection[Key] = ()  # models that somebody waits for, while they are placed

    def retune(self, keep_alive: float) -> None:
        """For instances made from now on."""
        self._keep_alive = keep_alive

    def place(self, now: float) -> list[Action]:
        """Find a place for each model that is waited for, in the order of their oldest requests.

        Again until nothing comes of it: a younger one that was placed may be pinned to what an older one waited for,
        which then fits nowhere any more and is told so.
        """
        out: list[Action] = []
        while found := self._place_each(now):
            out += found
        return out

    def _place_each(self, now: float) -> list[Action]:
        out: list[Action] = []
        older: set[Key] = set()
        wishes = [] if self._service.paused else list(self._service.queue.models())
        self._waited = frozenset(wish.key for wish in wishes)
        for wish in wishes:
            out += self._admit(wish, older, now)
            older.add(wish.key)
        for slot in self._roster.slots.values():
            until = slot.tenure_ends() if slot.key in older and len(older) > 1 else 0.0
            slot.protected_until = until if now < until < math.inf else None
        return out

    def _admit(self, wish: Wish, older: Collection[Key], now: float) -> list[Action]:
        """Bring one model nearer to being served; `older` are the models that older requests wait for.

        1. It has no instance, or one that failed long enough ago, or one that sleeps: it needs the promise of a place.
        2. It has a promise and there is room: it starts, or wakes.
        3. It has a promise that cannot come true any more, since others took the memory: it needs another.
        4. Anything else is on its way, in or out, and will be heard of.
        """
        slot = self._roster.get(wish.key)
        out: list[Action] = []
        if slot is None or slot.state is State.FAILED or (slot.state is State.ASLEEP and not slot.called):  # 1
            out += self._promise(wish, older, now)
            slot = self._roster.get(wish.key)
        if slot is None or not slot.promised:  # 4
            return out
        if self._admission.stuck(slot, now):  # 3
            out += self._promise(wish, older, now)
        if slot.promised and self._admission.has_room(slot, now):  # 2
            waking = slot.state is State.ASLEEP
            if waking:
                self._journal.tell("woken", slot.key, "a request waits for it", now)
            out += self._roster.apply(slot, Order.WAKE if waking else Order.START, now)
        return out

    def _promise(self, wish: Wish, older: Collection[Key], now: float) -> list[Action]:
        """Decide where the model lies and who leaves for it, and begin that; nothing, where it has to wait."""
        if not self._admission.known(now):
            return []
        question = self._admission.question(wish.key, wish.terms, now, older=older, waited=self._waited)
        answer = decide(question)
        match answer:
            case Placed(placement=placement, victims=victims):
                self._journal.tell("placed", wish.key, _seen(answer), now, (question, answer))
                out: list[Action] = []
                for victim in victims:
                    slot = self._roster.named(victim.key)
                    out += self._send_away(slot, victim.level, wish, (question, answer), now)
                out += self._give_promise(wish, now)
                self._roster.settle_in(self._roster.slots[wish.key], wish.terms, placement)
                return out
            case Soon(why=why, stops=stops):
                self._journal.tell("waits", wish.key, why, now, (question, answer))
                return self._stop_sleepers(stops, wish, (question, answer), now)
            case Waits(why=why):
                self._journal.tell("waits", wish.key, why, now, (question, answer))
                self._admission.look_again()
                return []
            case Never() if not self._admission.measured_since(wish.came):
                return []
            case Never(why=why):
                return self._give_up(wish, why, (question, answer), now)

    def _send_away(
        self, slot: Slot, level: int, wish: Wish, decision: tuple[Question, Answer], now: float
    ) -> list[Action]:
        """A victim leaves: it sleeps where it can, after its requests."""
        what = "evicted" if level == STOP else "slept"
        self._journal.tell(what, slot.key, f"{wish.key} needs its room", now, decision)
        if level == STOP:
            return self._roster.apply(slot, Order.DRAIN, now)
        slot.sleeps_at(level)
        return self._roster.apply(slot, Order.SLEEP, now)

    def _stop_sleepers(
        self, stops: Collection[str], wish: Wish, decision: tuple[Question, Answer], now: float
    ) -> list[Action]:
        """Their host memory is worth more to another; the wish is looked at again when it has come back."""
        out: list[Action] = []
        for key in stops:
            slot = self._roster.named(key)
            self._journal.tell("evicted", slot.key, f"{wish.key} needs its host memory", now, decision)
            out += self._roster.apply(slot, Order.STOP, now)
        return out

    def _give_promise(self, wish: Wish, now: float) -> list[Action]:
        """A new instance, or a failed one made new, with the request's keep_alive or else the configured one."""
        keep_alive = self._keep_alive if wish.keep_alive is None else wish.keep_alive
        slot = self._roster.get(wish.key)
        if slot is None:
            slot = self._roster.add(wish.key, keep_alive, now)
            return [Changed(slot.key, slot.state)]
        if slot.state is State.FAILED:
            slot.keep_alive = keep_alive
            return self._roster.apply(slot, Order.RETRY, now)
        slot.called = slot.state is State.ASLEEP
        return []

    def _give_up(self, wish: Wish, why: str, decision: tuple[Question, Answer], now: float) -> list[Action]:
        """It can never lie there: one that sleeps is stopped, it may fit elsewhere; else its requests are refused."""
        slot = self._roster.get(wish.key)
        if slot is not None and slot.state is State.ASLEEP:
            self._journal.tell("evicted", wish.key, f"cannot be woken: {why}", now, decision)
            return self._roster.apply(slot, Order.STOP, now)
        self._journal.tell("refused", wish.key, why, now, decision)
        hint = "unload other models, or give this one a smaller `context` or `parallel`"
        out = self._service.refuse(wish.key, NoRoomError(f"the model {why}", hint=hint))
        return out + ([] if slot is None or slot.state is State.FAILED else self._roster.apply(slot, Order.STOP, now))


def _seen(answer: Placed) -> str:
    """A placement in words."""
    where = ", ".join("memory" if share.index < 0 else f"GPU {share.index}" for share in answer.placement.shares)
    count = len(answer.victims)
    leave = f", once {'another has' if count == 1 else f'{count} others have'} left" if count else ""
    return f"fits into {where or 'a free place'}{leave}"
