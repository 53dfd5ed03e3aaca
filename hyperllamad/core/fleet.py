"""Every event of the models' world, and what follows from it.

Owns the order in which things are decided after an event, and what leaves when its time is over.  What requests are
told is in service.py, who is there in roster.py, how somebody who is waited for arrives in arrivals.py; nothing else in
the program decides.  Must not know processes, sockets, tasks or the clock: events and the time (monotonic seconds) go
in, actions come out.  The caller performs all actions of an event, in the order given, before it brings the next event,
and calls tick() at next_deadline().  While needs_measure is set somebody cannot be placed or started before measure()
was called.
"""

from __future__ import annotations

import math

from hyperllamad.core.actions import Action, Changed, Refuse, View
from hyperllamad.core.admission import Admission, Rules
from hyperllamad.core.arrivals import Arrivals
from hyperllamad.core.errors import ClosingError, HyperLlamaError
from hyperllamad.core.instance import Fact, Order, State
from hyperllamad.core.journal import Journal
from hyperllamad.core.ledger import Measured, Missing
from hyperllamad.core.models import NO_TERMS, Key, Placement, Terms
from hyperllamad.core.patience import Patience
from hyperllamad.core.placement import foresee
from hyperllamad.core.question import Answer, Question
from hyperllamad.core.queue import Wish
from hyperllamad.core.records import Record
from hyperllamad.core.roster import Roster
from hyperllamad.core.service import Service
from hyperllamad.core.slot import Slot

NO_RULES = Rules()


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
        self._patience = Patience(load_timeout, stop_timeout, drain_timeout, restart_budget)
        # The mutable state of the daemon's decisions is in these, and nowhere else:
        self._slots: dict[Key, Slot] = {}  # every instance that is not GONE
        self._journal = Journal()
        self._admission = Admission(self._slots, rules, max_models)
        self._service = Service(self._slots, self._journal, self._patience, longest=max_queue)
        self._roster = Roster(self._slots, self._admission, self._journal, self._patience, cut=self._service.cut)
        self._arrivals = Arrivals(self._roster, self._service, self._admission, self._journal, keep_alive=keep_alive)
        self._closing = False

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
        self._patience = Patience(load_timeout, stop_timeout, drain_timeout, restart_budget)
        self._service.retune(self._patience, max_queue, now)
        self._roster.retune(self._patience)
        self._admission.retune(rules, max_models)
        self._arrivals.retune(keep_alive)
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
        wish = Wish(lease, key, keep_alive, now, self._patience.request_deadline(now), client, weight, terms)
        if self._closing:  # 1
            return [Refuse(lease, ClosingError()), *self._settle(now)]
        return self._service.join(wish, now) + self._settle(now)  # 2, 3

    def begun(self, lease: int, now: float) -> list[Action]:
        """The engine has taken the request in; again, or for a number that is not known, it is nothing.

        To be called for every request for an instance whose terms say tells_begin.
        """
        return self._settle(now) if self._service.queue.begun(lease) else []

    def release(self, lease: int, now: float) -> list[Action]:
        """The request is over, served or not; a number that is not known is no error."""
        key = self._service.end(lease, now)
        # Leases are open only while READY, DRAINING or SETTLING: it is there.
        out = [] if key is None else self._roster.release(self._slots[key], now)
        return out + self._settle(now)

    # -- events: the world -----------------------------------------------------------------------------------------

    def report(self, key: Key, fact: Fact, now: float, *, error: HyperLlamaError | None = None) -> list[Action]:
        """Something is true of the child of `key`.

        `error` explains it; requests get it if the instance comes to FAILED.
        """
        slot = self._slots.get(key)
        out = [] if slot is None else self._roster.apply(slot, fact, now, error=error)
        return out + self._settle(now)

    def measure(self, measured: Measured, now: float) -> list[Action]:
        """Memory was measured."""
        self._admission.measure(measured, now)
        return self._settle(now)

    def lose(self, device: str, why: str, now: float) -> list[Action]:
        """Nothing may lie on that device any more: whoever does, or was promised to, leaves at once."""
        self._admission.ledger.lose(device, why)
        out: list[Action] = []
        for slot in [slot for slot in self._slots.values() if device in slot.devices]:
            if slot.state is not State.FAILED:
                self._journal.tell("unloaded", slot.key, why, now)
                out += self._roster.apply(slot, Order.STOP, now)
        return out + self._settle(now)

    def pause(self, now: float) -> list[Action]:
        """From here to resume() nobody is granted a lease, placed, started or woken; whoever waits goes on waiting."""
        self._service.paused = True
        return self._settle(now)

    def resume(self, now: float) -> list[Action]:
        """The pause is over."""
        self._service.paused = False
        return self._settle(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed.  Afterwards next_deadline() lies in the future.

        Requests and keep-alives first: a request is told of the state that it waited in, not of the one that follows,
        and nothing is started again whose keep-alive is over.
        """
        out = self._settle(now)
        for slot in list(self._slots.values()):
            if slot.deadline is not None and slot.deadline <= now:
                out += self._roster.apply(slot, Fact.LATE, now)
        self._service.queue.prune(now)
        return out + self._settle(now)

    def next_deadline(self) -> float | None:
        """When tick() must be called if nothing happens before; None = nothing is timed."""
        times = [self._service.queue.deadline()]
        for slot in self._slots.values():
            if slot.deadline is not None:
                times.append(slot.deadline)
            if not self._service.queue.waits(slot.key):
                times.append(slot.expiry())
            elif slot.state is State.READY and not self._service.paused:
                times.append(self._service.queue.slot_opens(slot.key))
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

    def unload(self, key: Key, now: float, *, cut: bool = False, why: str = "somebody asked for it") -> list[Action]:
        """Send an instance away, after its requests or (`cut`) at once.  Requests that wait for it get a new one."""
        slot = self._slots.get(key)
        out: list[Action] = []
        if slot is not None:
            self._journal.tell("unloaded", slot.key, why, now)
            out = self._roster.apply(slot, Order.STOP if cut else Order.DRAIN, now)
        return out + self._settle(now)

    def put_to_sleep(self, key: Key, level: int, why: str, now: float) -> list[Action]:
        """Have a READY instance sleep after its requests, or leave where host memory is full; others stay."""
        slot = self._slots.get(key)
        out: list[Action] = []
        if slot is not None and slot.state is State.READY:
            fits = level != 1 or slot.host_memory() <= self._admission.sleep_memory()
            self._journal.tell("slept" if fits else "unloaded", slot.key, why, now)
            if fits:
                slot.sleeps_at(level)
            out = self._roster.apply(slot, Order.SLEEP if fits else Order.DRAIN, now)
        return out + self._settle(now)

    def retry(self, key: Key, now: float) -> list[Action]:
        """Do not hold its past against it: a failed instance is forgotten, one in back-off starts at once."""
        slot = self._slots.get(key)
        out: list[Action] = []
        if slot is not None and slot.state is State.FAILED:
            out = self._roster.apply(slot, Order.STOP, now)
        elif slot is not None and slot.state is State.BACKOFF:
            out = self._roster.apply(slot, Order.RETRY, now)
        return out + self._settle(now)

    def close(self, now: float, *, drain: bool = True) -> list[Action]:
        """Nobody new is served; what is open may finish; views() is empty when all is over.

        Without `drain` the instances stay as they are until they are told otherwise.
        """
        self._closing = True
        out = self._service.refuse_everybody(ClosingError())
        for slot in list(self._slots.values()) if drain else ():
            out += self._roster.apply(slot, Order.DRAIN, now)
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
        slot = self._roster.add(key, keep_alive, now)
        self._roster.settle_in(slot, terms, placement)
        self._journal.tell("adopted", key, "an earlier life of the daemon left it running", now)
        out: list[Action] = [Changed(key, slot.state)]
        return out + self._roster.apply(slot, Order.START, now) + self._settle(now)

    def leave(self, key: Key, now: float) -> list[Action]:
        """The engine of `key` goes on without us, for the next life of the daemon: the instance is over."""
        slot = self._slots.get(key)
        out: list[Action] = []
        if slot is not None:
            self._journal.tell("left", key, "the next life of the daemon goes on with it", now)
            out = self._roster.apply(slot, Order.STOP, now) + self._roster.apply(slot, Fact.EXITED, now)
        return out + self._settle(now)

    # -- what people see -------------------------------------------------------------------------------------------

    @property
    def needs_measure(self) -> bool:
        """Somebody waits for a measurement."""
        return self._admission.needs_measure

    @property
    def owed(self) -> bool:
        """GPU memory of an instance that has ended is to come back: whoever measures sees when."""
        return self._admission.ledger.owed

    @property
    def missing(self) -> tuple[Missing, ...]:
        """GPU memory of instances that have ended, which has not come back in time."""
        return tuple(self._admission.ledger.missing)

    @property
    def debtors(self) -> frozenset[Key]:
        """Instances that have ended, and whose memory has not come back."""
        return self._admission.ledger.debtors

    def views(self, now: float) -> tuple[View, ...]:
        """Every instance, in the order in which they were made."""
        return tuple(slot.view(now, self._service.queue.clients(key)) for key, slot in self._slots.items())

    def view(self, key: Key, now: float) -> View | None:
        """The instance of `key`, if there is one."""
        slot = self._slots.get(key)
        return None if slot is None else slot.view(now, self._service.queue.clients(key))

    def records(self) -> list[Record]:
        """Every decision since the last call."""
        return self._journal.take()

    def plan(self, key: Key, terms: Terms, now: float) -> tuple[Question, Answer]:
        """What would come of a request for `key` that came now, if nothing else happened; changes nothing."""
        older = {wish.key for wish in self._service.queue.models()} - {key}
        question = self._admission.question(key, terms, now, older=older, waited=older)
        return question, foresee(question)

    def __repr__(self) -> str:
        closing = ", closing" if self._closing else ""
        slots = ", ".join(f"{key} {slot.instance}" for key, slot in self._slots.items())
        places = f"{self._admission.taken()} of {self._max_models} places"
        return f"<Fleet {places}, {len(self._service.queue)} waiting{closing}{': ' if slots else ''}{slots}>"

    # -- decisions -------------------------------------------------------------------------------------------------

    def _settle(self, now: float) -> list[Action]:
        """Bring everything to where nothing more can be decided; called after every event.

        1. Serve: who waits for an instance that is ready, or has failed, or has waited too long, is answered.
        2. Dismiss: what nobody waits for and whose time is over leaves.
        3. Place: who still waits gets a place, where one is free or can be made.
        """
        return [*self._service.serve(now), *self._dismiss(now), *self._arrivals.place(now)]

    def _dismiss(self, now: float) -> list[Action]:
        """Let go who has no reason to stay.

        Whose keep-alive is over, who was promised a place that nobody waits for, who sleeps beyond the budget.
        """
        out: list[Action] = []
        for slot in self._admission.overdrawn():
            self._journal.tell("evicted", slot.key, "there is less host memory for those who sleep", now)
            out += self._roster.apply(slot, Order.STOP, now)
        for slot in list(self._slots.values()):
            slot.rest(now)
            if self._service.queue.waits(slot.key):
                continue
            slot.called = False
            if slot.state is State.WAITING or slot.expiry() <= now:
                if slot.state is not State.WAITING:
                    self._journal.tell("unloaded", slot.key, "its keep-alive is over", now)
                out += self._roster.apply(slot, Order.STOP, now)
        return out
