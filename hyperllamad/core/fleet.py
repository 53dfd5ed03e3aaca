"""Which instance serves a request, and who must leave to make room.

Owns the queue, the leases, the ledger and every decision about instances; nothing else in the program decides.
Must not know processes, sockets, tasks or the clock: events and the time (monotonic seconds) go in, actions come out.
The caller performs all actions of an event, in the order given, before it brings the next event, and calls tick() at
next_deadline().  While needs_measure is set somebody cannot be placed or started before measure() was called.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from hyperllamad.core.actions import Action, Changed, Do, Grant, Refuse, View
from hyperllamad.core.admission import Admission, Rules
from hyperllamad.core.errors import BusyError, ClosingError, HyperLlamaError, NoRoomError
from hyperllamad.core.instance import Effect, Fact, Order, State
from hyperllamad.core.journal import Journal
from hyperllamad.core.ledger import Measured
from hyperllamad.core.models import NO_TERMS, Key, Placement, Terms
from hyperllamad.core.patience import Patience
from hyperllamad.core.placement import STOP, Answer, Never, Placed, Question, Waits, decide
from hyperllamad.core.queue import Queue, Wish, yields
from hyperllamad.core.records import Crash, Record
from hyperllamad.core.slot import Slot

NO_RULES = Rules()

__all__ = ["Action", "Changed", "Do", "Fleet", "Grant", "Refuse", "Rules", "View"]


class Fleet:
    """All instances.  Every event returns the actions it causes, already decided, in the order to do them."""

    def __init__(
        self,
        *,
        max_models: int,
        keep_alive: float,
        max_queue: int,
        load_timeout: float,
        stop_timeout: float,
        drain_timeout: float,
        restart_budget: int,
        rules: Rules = NO_RULES,
    ) -> None:
        """At least one model; times in seconds, math.inf = for ever; `max_queue` requests may wait for each model."""
        self._max_models = max_models
        self._keep_alive = keep_alive
        self._patience = Patience(load_timeout, stop_timeout, drain_timeout, restart_budget)
        # The mutable state of the daemon's decisions is these, and nothing else:
        self._slots: dict[Key, Slot] = {}  # every instance that is not GONE
        self._queue = Queue(longest=max_queue)
        self._leases: dict[int, Key] = {}  # granted and not yet released
        self._admission = Admission(self._slots, rules, max_models)
        self._closing = False
        self._journal = Journal()
        self._sleepless: set[Key] = set()  # those that did not fall asleep or wake as they should

    def retune(
        self,
        now: float,
        *,
        max_models: int,
        keep_alive: float,
        max_queue: int,
        load_timeout: float,
        stop_timeout: float,
        drain_timeout: float,
        restart_budget: int,
        rules: Rules = NO_RULES,
    ) -> list[Action]:
        """Other numbers from now on, as for a new one.  Instances that are there keep the times they began with."""
        self._max_models = max_models
        self._keep_alive = keep_alive
        self._patience = Patience(load_timeout, stop_timeout, drain_timeout, restart_budget)
        self._queue.retune(max_queue)
        self._admission.retune(rules, max_models)
        return self._settle(now)

    # -- events: requests ------------------------------------------------------------------------------------------

    def want(
        self,
        lease: int,
        key: Key,
        now: float,
        *,
        keep_alive: float | None,
        client: str = "",
        weight: float = 1.0,
        terms: Terms = NO_TERMS,
    ) -> list[Action]:
        """A request needs an instance of `key`; `lease` is a number never used before.

        The answer is one Grant or one Refuse for that number, now or later, or nothing once release() was called.
        1. The daemon closes: refused.
        2. It would have to wait and the model's queue is full: it, or one of a client who waits with more, is refused.
        3. It joins the queue, from which it is served at once where that is possible.
        """
        out: list[Action] = []
        wish = Wish(lease, key, keep_alive, now, self._patience.request_deadline(now), client, weight, terms)
        if self._closing:  # 1
            out.append(Refuse(lease, ClosingError()))
        elif self._answers_at_once(key, now) or self._make_way(wish, now, out):  # 2
            self._queue.join(wish, now)  # 3
        return out + self._settle(now)

    def release(self, lease: int, now: float) -> list[Action]:
        """The request is over, served or not; a number that is not known is no error."""
        self._queue.leave(lease)
        self._queue.end(lease, now)
        key = self._leases.pop(lease, None)
        out: list[Action] = []
        if key is not None:
            slot = self._slots[key]  # leases are open only while READY, DRAINING or SETTLING: it is there
            before, effects = slot.state, slot.release(now)
            out = self._follow(slot, before, effects, now)
        return out + self._settle(now)

    # -- events: the world -----------------------------------------------------------------------------------------

    def report(self, key: Key, fact: Fact, now: float, *, error: HyperLlamaError | None = None) -> list[Action]:
        """Something is true of the child of `key`.

        `error` explains it; requests get it if the instance comes to FAILED.
        """
        slot = self._slots.get(key)
        out = [] if slot is None else self._apply(slot, fact, now, error=error)
        return out + self._settle(now)

    def measure(self, measured: Measured, now: float) -> list[Action]:
        """Memory was measured."""
        self._admission.measure(measured, now)
        return self._settle(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed.  Afterwards next_deadline() lies in the future.

        Requests and keep-alives first: a request is told of the state that it waited in, not of the one that follows,
        and nothing is started again whose keep-alive is over.
        """
        out = self._settle(now)
        for slot in list(self._slots.values()):
            if slot.deadline is not None and slot.deadline <= now:
                out += self._apply(slot, Fact.LATE, now)
        self._queue.prune(now)
        return out + self._settle(now)

    def next_deadline(self) -> float | None:
        """When tick() must be called if nothing happens before; None = nothing is timed."""
        times = [self._queue.deadline()]
        for slot in self._slots.values():
            if slot.deadline is not None:
                times.append(slot.deadline)
            if not self._queue.waits(slot.key):
                times.append(slot.expiry())
            elif slot.state is State.READY:
                times.append(self._queue.slot_opens(slot.key))
            if slot.protected_until is not None:
                times.append(slot.protected_until)
        soonest = min(times, default=math.inf)
        return None if soonest == math.inf else soonest

    # -- events: the administrator ---------------------------------------------------------------------------------

    def keep(self, key: Key, keep_alive: float, now: float) -> list[Action]:
        """Set how long an instance stays, without a request; 0 = it goes as soon as it is idle.

        Requests that come before it stops still use it, and may set another keep_alive.
        """
        if slot := self._slots.get(key):
            slot.keep(keep_alive, now)
        return self._settle(now)

    def unload(self, key: Key, now: float, *, cut: bool = False) -> list[Action]:
        """Send an instance away, after its requests or (`cut`) at once.  Requests that wait for it get a new one."""
        slot = self._slots.get(key)
        out: list[Action] = []
        if slot is not None:
            self._journal.tell("unloaded", slot.key, "somebody asked for it", now)
            out = self._apply(slot, Order.STOP if cut else Order.DRAIN, now)
        return out + self._settle(now)

    def retry(self, key: Key, now: float) -> list[Action]:
        """Do not hold its past against it: a failed instance is forgotten, one in back-off starts at once."""
        slot = self._slots.get(key)
        out: list[Action] = []
        if slot is not None and slot.state is State.FAILED:
            out = self._apply(slot, Order.STOP, now)
        elif slot is not None and slot.state is State.BACKOFF:
            out = self._apply(slot, Order.RETRY, now)
        return out + self._settle(now)

    def close(self, now: float, *, drain: bool = True) -> list[Action]:
        """Nobody new is served; what is open may finish; views() is empty when all is over.

        Without `drain` the instances stay as they are until they are told otherwise.
        """
        self._closing = True
        out: list[Action] = []
        for wish in self._queue.oldest_first():
            self._queue.leave(wish.lease)
            out.append(Refuse(wish.lease, ClosingError()))
        for slot in list(self._slots.values()) if drain else ():
            out += self._apply(slot, Order.DRAIN, now)
        return out + self._settle(now)

    def adopt(
        self,
        key: Key,
        now: float,
        *,
        keep_alive: float,
        terms: Terms = NO_TERMS,
        placement: Placement | None = None,
    ) -> list[Action]:
        """An engine of an earlier life serves `key`: it has its place already, and starts there without a wish.

        Not for a key that has an instance.
        """
        slot = Slot(key, self._patience, keep_alive, since=now, last_used=now, terms=terms, placement=placement)
        self._slots[key] = slot
        self._journal.tell("adopted", key, "an earlier life of the daemon left it running", now)
        out: list[Action] = [Changed(key, slot.state)]
        return out + self._apply(slot, Order.START, now) + self._settle(now)

    def leave(self, key: Key, now: float) -> list[Action]:
        """The engine of `key` goes on without us, for the next life of the daemon: the instance is over."""
        slot = self._slots.get(key)
        out: list[Action] = []
        if slot is not None:
            self._journal.tell("left", key, "the next life of the daemon goes on with it", now)
            out = self._apply(slot, Order.STOP, now) + self._apply(slot, Fact.EXITED, now)
        return out + self._settle(now)

    # -- what people see -------------------------------------------------------------------------------------------

    @property
    def needs_measure(self) -> bool:
        """Somebody waits for a measurement."""
        return self._admission.needs_measure

    def views(self, now: float) -> tuple[View, ...]:
        """Every instance, in the order in which they were made."""
        return tuple(slot.view(now, self._queue.clients(key)) for key, slot in self._slots.items())

    def placement(self, key: Key) -> Placement | None:
        """Where an instance lies or will lie."""
        slot = self._slots.get(key)
        return None if slot is None else slot.placement

    def records(self) -> list[Record]:
        """Every decision since the last call."""
        return self._journal.take()

    def plan(self, key: Key, terms: Terms, now: float) -> tuple[Question, Answer]:
        """What would be decided if a request for `key` came now; changes nothing."""
        question = self._admission.question(key, terms, self._older(key), now)
        return question, decide(question)

    def __repr__(self) -> str:
        closing = ", closing" if self._closing else ""
        slots = ", ".join(f"{key} {slot.instance}" for key, slot in self._slots.items())
        places = f"{self._admission.taken()} of {self._max_models} places"
        return f"<Fleet {places}, {len(self._queue)} waiting{closing}{': ' if slots else ''}{slots}>"

    # -- decisions -------------------------------------------------------------------------------------------------

    def _settle(self, now: float) -> list[Action]:
        """Bring everything to where nothing more can be decided; called after every event.

        1. Serve: who waits for an instance that is ready, or has failed, or has waited too long, is answered.
        2. Dismiss: what nobody waits for and whose time is over leaves.
        3. Place: who still waits gets a place, where one is free or can be made.
        """
        return [*self._serve(now), *self._dismiss(now), *self._place(now)]

    def _serve(self, now: float) -> list[Action]:
        """Answer the queue.  Before any eviction, so that a ready instance serves all of its own that it can."""
        out: list[Action] = []
        for head in self._queue.models():
            slot = self._slots.get(head.key)
            if slot is not None and slot.state is State.READY:
                while wish := self._queue.next(slot.key, slot.terms.parallel, now):
                    self._queue.grant(wish)
                    slot.grant(now, wish.keep_alive)
                    self._leases[wish.lease] = slot.key
                    out.append(Grant(wish.lease, slot.key))
            elif slot is not None and (error := slot.refusal(now)):
                out += self._refuse_all(slot.key, error)
        for wish in self._queue.oldest_first():
            if wish.deadline > now:
                break
            slot = self._slots.get(wish.key)
            error = self._patience.too_late(slot.instance if slot is not None else None)
            self._journal.tell("refused", wish.key, error.message, now)
            self._queue.leave(wish.lease)
            out.append(Refuse(wish.lease, error))
        return out

    def _dismiss(self, now: float) -> list[Action]:
        """Let go whose keep-alive is over, and who was promised a place that nobody waits for any more."""
        out: list[Action] = []
        for slot in list(self._slots.values()):
            slot.rest(now)
            if self._queue.waits(slot.key):
                continue
            slot.called = False
            if slot.state is State.WAITING or slot.expiry() <= now:
                if slot.state is not State.WAITING:
                    self._journal.tell("unloaded", slot.key, "its keep-alive is over", now)
                out += self._apply(slot, Order.STOP, now)
        return out

    def _place(self, now: float) -> list[Action]:
        """Find a place for each model that is waited for, in the order of their oldest requests."""
        out: list[Action] = []
        older: set[Key] = set()
        for wish in list(self._queue.models()):
            out += self._admit(wish, older, now)
            older.add(wish.key)
        for slot in self._slots.values():
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
        slot = self._slots.get(wish.key)
        out: list[Action] = []
        if slot is None or slot.state is State.FAILED or (slot.state is State.ASLEEP and not slot.called):  # 1
            out += self._promise(wish, older, now)
            slot = self._slots.get(wish.key)
        if slot is None or not slot.promised:  # 4
            return out
        if self._admission.stuck(slot, now):  # 3
            out += self._promise(wish, older, now)
        if slot.promised and self._admission.has_room(slot, now):  # 2
            waking = slot.state is State.ASLEEP
            if waking:
                self._journal.tell("woken", slot.key, "a request waits for it", now)
            out += self._apply(slot, Order.WAKE if waking else Order.START, now)
        return out

    def _promise(self, wish: Wish, older: Collection[Key], now: float) -> list[Action]:
        """Decide where the model lies and who leaves for it, and begin that; nothing, where it has to wait."""
        if not self._admission.known(now):
            return []
        question = self._admission.question(wish.key, wish.terms, older, now)
        answer = decide(question)
        slot = self._slots.get(wish.key)
        match answer:
            case Placed(placement, victims):
                self._journal.tell("placed", wish.key, _seen(answer), now, (question, answer))
                out: list[Action] = []
                for victim in victims:
                    out += self._send_away(self._by_text(victim.key), victim.level, wish, (question, answer), now)
                out += self._give_promise(wish, now)
                slot = self._slots[wish.key]
                slot.terms = wish.terms if wish.key not in self._sleepless else replace(wish.terms, sleep_levels=())
                slot.placement = placement
                return out
            case Waits(why):
                self._journal.tell("waits", wish.key, why, now, (question, answer))
                self._admission.look_again()
                return []
            case Never() if not self._admission.measured_since(wish.came):
                return []
            case Never(why):
                if slot is not None and slot.state is State.ASLEEP:  # where it lies; perhaps it fits elsewhere
                    self._journal.tell("evicted", wish.key, f"cannot be woken: {why}", now, (question, answer))
                    return self._apply(slot, Order.STOP, now)
                self._journal.tell("refused", wish.key, why, now, (question, answer))
                hint = "unload other models, or give this one a smaller `context` or `parallel`"
                out = self._refuse_all(wish.key, NoRoomError(f"the model {why}", hint=hint))
                return out + ([] if slot is None or slot.state is State.FAILED else self._apply(slot, Order.STOP, now))

    def _send_away(
        self, slot: Slot, level: int, wish: Wish, decision: tuple[Question, Answer], now: float
    ) -> list[Action]:
        """A victim leaves: it sleeps where it can, after its requests."""
        what = "evicted" if level == STOP else "slept"
        self._journal.tell(what, slot.key, f"{wish.key} needs its room", now, decision)
        if level == STOP:
            return self._apply(slot, Order.DRAIN, now)
        slot.sleeps_at(level)
        return self._apply(slot, Order.SLEEP, now)

    def _give_promise(self, wish: Wish, now: float) -> list[Action]:
        """A new instance, or a failed one made new, with the request's keep_alive or else the configured one."""
        keep_alive = self._keep_alive if wish.keep_alive is None else wish.keep_alive
        slot = self._slots.get(wish.key)
        if slot is None:
            slot = self._slots[wish.key] = Slot(wish.key, self._patience, keep_alive, since=now, last_used=now)
            return [Changed(slot.key, slot.state)]
        if slot.state is State.FAILED:
            slot.keep_alive = keep_alive
            return self._apply(slot, Order.RETRY, now)
        slot.called = slot.state is State.ASLEEP
        return []

    # -- steps -----------------------------------------------------------------------------------------------------

    def _apply(
        self, slot: Slot, event: Order | Fact, now: float, *, error: HyperLlamaError | None = None
    ) -> list[Action]:
        before, effects = slot.state, slot.on(event, now, error=error)
        return self._follow(slot, before, effects, now)

    def _follow(self, slot: Slot, before: State, effects: tuple[Effect, ...], now: float) -> list[Action]:
        """Keep the books after a step of one instance; returns the step as actions."""
        if Effect.CUT in effects:
            for lease in [lease for lease, key in self._leases.items() if key == slot.key]:
                del self._leases[lease]
                self._queue.end(lease, now, served=False)
        self._admission.account(slot, effects, now)
        self._explain(slot, before, now)
        if before in {State.SLEEPING, State.WAKING} and Effect.KILL in effects:
            self._sleepless.add(slot.key)
        if slot.state is State.GONE:
            del self._slots[slot.key]
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

    def _refuse_all(self, key: Key, error: HyperLlamaError) -> list[Action]:
        out: list[Action] = []
        for wish in self._queue.of(key):
            self._queue.leave(wish.lease)
            out.append(Refuse(wish.lease, _copy(error)))
        return out

    def _make_way(self, wish: Wish, now: float, out: list[Action]) -> bool:
        """Whether the request may join its queue: there is room, or somebody with more in it gave way."""
        full = self._queue.overflow(wish.key, wish.client, wish.weight)
        if full is None:
            return True
        loser = yields(full)
        out_of = wish if loser is None else self._queue.youngest(wish.key, loser)
        self._queue.leave(out_of.lease)
        self._journal.tell(
            "refused", wish.key, f"the queue of {sum(full.waiting.values())} is full", now, (full, loser)
        )
        out.append(Refuse(out_of.lease, BusyError(retry_after=self._pause(wish.key, now))))
        return loser is not None

    # -- questions -------------------------------------------------------------------------------------------------

    def _older(self, key: Key) -> set[Key]:
        """Models that are waited for, before a request for `key` that came now."""
        return {wish.key for wish in self._queue.models()} - {key}

    def _answers_at_once(self, key: Key, now: float) -> bool:
        slot = self._slots.get(key)
        if slot is None or slot.refusal(now) is not None:
            return slot is not None
        parallel = slot.terms.parallel
        free = not parallel or slot.instance.leases < parallel
        return slot.state is State.READY and free and not self._queue.waits(key)

    def _pause(self, key: Key, now: float) -> float | None:
        """Seconds until a request that came now would be served, as far as is known."""
        slot = self._slots.get(key)
        arriving = slot is not None and slot.state in {State.WAITING, State.STARTING}
        left = max(1.0, slot.terms.load_seconds - (now - slot.since)) if slot is not None and arriving else 0.0
        pace = self._queue.pause(key, now)
        return left + (pace or 0.0) if left or pace else None

    def _by_text(self, key: str) -> Slot:
        return next(slot for slot in self._slots.values() if str(slot.key) == key)


def _seen(answer: Placed) -> str:
    """A placement in words."""
    where = ", ".join("memory" if share.index < 0 else f"GPU {share.index}" for share in answer.placement.shares)
    count = len(answer.victims)
    leave = f", once {'another has' if count == 1 else f'{count} others have'} left" if count else ""
    return f"fits into {where or 'a free place'}{leave}"


def _copy(error: HyperLlamaError) -> HyperLlamaError:
    """The same error for another request: one object raised in many tasks would chain all their tracebacks."""
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    return copy
