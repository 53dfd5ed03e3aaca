"""Which instance serves a request, and who must leave to make room.

Owns the queue, the leases and every decision about instances; nothing else in the program decides.
Must not know processes, sockets, tasks or the clock: events and the time (monotonic seconds) go in, actions come out.
The caller performs all actions of an event, in the order given, before it brings the next event, and calls tick() at
next_deadline().
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from hyperllamad.core.actions import Action, Changed, Do, Grant, Refuse, View
from hyperllamad.core.errors import BusyError, ClosingError, HyperLlamaError
from hyperllamad.core.instance import HOLDS_PLACE, Effect, Fact, Order, State
from hyperllamad.core.models import Key
from hyperllamad.core.patience import Patience
from hyperllamad.core.slot import Slot

__all__ = ["Action", "Changed", "Do", "Fleet", "Grant", "Refuse", "View"]

_PROMISED = HOLDS_PLACE | {State.WAITING}


@dataclass(frozen=True, slots=True)
class _Wish:
    """A request that waits."""

    key: Key
    keep_alive: float | None
    deadline: float


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
    ) -> None:
        """At least one model; times in seconds, math.inf = for ever."""
        self._max_models = max_models
        self._keep_alive = keep_alive
        self._max_queue = max(1, max_queue)  # a request that loads a model waits too: with none nothing could be loaded
        self._patience = Patience(load_timeout, stop_timeout, drain_timeout, restart_budget)
        # The mutable state of the daemon's decisions is these four, and nothing else:
        self._slots: dict[Key, Slot] = {}  # every instance that is not GONE
        self._waiting: dict[int, _Wish] = {}  # requests by lease, oldest first
        self._leases: dict[int, Key] = {}  # granted and not yet released
        self._closing = False

    # -- events: requests ------------------------------------------------------------------------------------------

    def want(self, lease: int, key: Key, now: float, *, keep_alive: float | None) -> list[Action]:
        """A request needs an instance of `key`; `lease` is a number never used before.

        The answer is one Grant or one Refuse for that number, now or later, or nothing once release() was called.
        1. The daemon closes: refused.
        2. It would have to wait and the queue is full: refused.
        3. It joins the queue, from which it is served at once where that is possible.
        """
        out: list[Action] = []
        if self._closing:  # 1
            out.append(Refuse(lease, ClosingError()))
        elif len(self._waiting) >= self._max_queue and not self._answers_at_once(key, now):  # 2
            out.append(Refuse(lease, BusyError()))
        else:  # 3
            self._waiting[lease] = _Wish(key, keep_alive, self._patience.request_deadline(now))
        return out + self._settle(now)

    def release(self, lease: int, now: float) -> list[Action]:
        """The request is over, served or not; a number that is not known is no error."""
        self._waiting.pop(lease, None)
        key = self._leases.pop(lease, None)
        out: list[Action] = []
        if key is not None:
            slot = self._slots[key]  # leases are open only while READY or DRAINING: it is there
            before, effects = slot.state, slot.release(now)
            out = self._follow(slot, before, effects)
        return out + self._settle(now)

    # -- events: the world -----------------------------------------------------------------------------------------

    def report(self, key: Key, fact: Fact, now: float, *, error: HyperLlamaError | None = None) -> list[Action]:
        """Something is true of the child of `key`.

        `error` explains it; requests get it if the instance comes to FAILED.
        """
        slot = self._slots.get(key)
        out = [] if slot is None else self._apply(slot, fact, now, error=error)
        return out + self._settle(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed.  Afterwards next_deadline() lies in the future.

        Requests and keep-alives first: a request is told of the state that it waited in, not of the one that follows,
        and nothing is started again whose keep-alive is over.
        """
        out = self._settle(now)
        for slot in list(self._slots.values()):
            if slot.deadline is not None and slot.deadline <= now:
                out += self._apply(slot, Fact.LATE, now)
        return out + self._settle(now)

    def next_deadline(self) -> float | None:
        """When tick() must be called if nothing happens before; None = nothing is timed."""
        wanted = {wish.key for wish in self._waiting.values()}
        times = [wish.deadline for wish in self._waiting.values()]
        times += [slot.deadline for slot in self._slots.values() if slot.deadline is not None]
        times += [slot.expiry() for slot in self._slots.values() if slot.key not in wanted]
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
        out = [] if slot is None else self._apply(slot, Order.STOP if cut else Order.DRAIN, now)
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

    def close(self, now: float) -> list[Action]:
        """Nobody new is served; what is open may finish; views() is empty when all is over."""
        self._closing = True
        out: list[Action] = [Refuse(lease, ClosingError()) for lease in self._waiting]
        self._waiting.clear()
        for slot in list(self._slots.values()):
            out += self._apply(slot, Order.DRAIN, now)
        return out + self._settle(now)

    # -- what people see -------------------------------------------------------------------------------------------

    def views(self, now: float) -> tuple[View, ...]:
        """Every instance, in the order in which they were made."""
        waiting = Counter(wish.key for wish in self._waiting.values())
        return tuple(
            View(
                key=key,
                state=slot.state,
                leases=slot.instance.leases,
                waiting=waiting[key],
                crashes=slot.crashes(now),
                since=slot.since,
                expires_at=slot.shown_expiry(now),
                error=slot.error,
                keep_alive=slot.keep_alive,
            )
            for key, slot in self._slots.items()
        )

    def __repr__(self) -> str:
        closing = ", closing" if self._closing else ""
        slots = ", ".join(f"{key} {slot.instance}" for key, slot in self._slots.items())
        places = f"{self._taken()} of {self._max_models} places"
        return f"<Fleet {places}, {len(self._waiting)} waiting{closing}{': ' if slots else ''}{slots}>"

    # -- decisions -------------------------------------------------------------------------------------------------

    def _settle(self, now: float) -> list[Action]:
        """Bring everything to where nothing more can be decided; called after every event.

        1. Serve: who waits for an instance that is ready, or has failed, or has waited too long, is answered.
        2. Dismiss: what nobody waits for and whose time is over leaves.
        3. Place: who still waits gets a place, where one is free or can be made.
        """
        return [*self._serve(now), *self._dismiss(now), *self._place(now)]

    def _serve(self, now: float) -> list[Action]:
        """Answer the queue, oldest first.  Before any eviction, so that a ready instance serves all its own."""
        out: list[Action] = []
        for lease, wish in list(self._waiting.items()):
            slot = self._slots.get(wish.key)
            if slot is not None and slot.state is State.READY:
                slot.grant(now, wish.keep_alive)
                self._leases[lease] = wish.key
                out.append(Grant(lease, wish.key))
            elif slot is not None and (error := slot.refusal(now)):
                out.append(Refuse(lease, _copy(error)))
            elif wish.deadline <= now:
                out.append(Refuse(lease, self._patience.too_late(slot.instance if slot is not None else None)))
            else:
                continue
            del self._waiting[lease]
        return out

    def _dismiss(self, now: float) -> list[Action]:
        """Let go whose keep-alive is over, and who was promised a place that nobody waits for any more."""
        out: list[Action] = []
        for slot in list(self._slots.values()):
            slot.rest(now)
            if (slot.state is State.WAITING or slot.expiry() <= now) and not self._wanted(slot.key):
                out += self._apply(slot, Order.STOP, now)
        return out

    def _place(self, now: float) -> list[Action]:
        """Find a place for each model that is waited for, in the order of their oldest requests."""
        out: list[Action] = []
        older: set[Key] = set()
        for wish in self._waiting.values():
            if wish.key not in older:
                out += self._admit(wish, older, now)
                older.add(wish.key)
        return out

    def _admit(self, wish: _Wish, older: Collection[Key], now: float) -> list[Action]:
        """Bring one model nearer to being served; `older` are the models that older requests wait for.

        1. It has no instance, or one that failed long enough ago: it needs the promise of a place.
           a. Not all places are promised (some may still have to be left): it gets one.
           b. All are: one instance is sent away for it.  If none may be, it waits without a promise.
        2. It has a promise and there is room: it starts.
        3. Anything else is on its way, in or out, and will be heard of.
        """
        slot = self._slots.get(wish.key)
        out: list[Action] = []
        if slot is None or slot.state is State.FAILED:  # 1
            if self._promised() >= self._max_models:  # 1b
                victim = self._victim(older)
                if victim is None:
                    return []
                out += self._apply(victim, Order.DRAIN, now)
            out += self._promise(wish, now)
            slot = self._slots[wish.key]
        if slot.state is State.WAITING and self._taken() < self._max_models:  # 2
            out += self._apply(slot, Order.START, now)
        return out

    def _victim(self, older: Collection[Key]) -> Slot | None:
        """Who leaves for a newcomer: idle before busy, then the least recently used; None = nobody may be sent away.

        An instance that is still arriving stays, or two models could evict each other for ever without serving
        anybody; and so does one in back-off that an older request waits for.
        """
        slots = [slot for key, slot in self._slots.items() if slot.instance.evictable and key not in older]
        return min(slots, key=lambda slot: (slot.instance.leases > 0, slot.last_used), default=None)

    def _promise(self, wish: _Wish, now: float) -> list[Action]:
        """A new instance, or a failed one made new, with the request's keep_alive or else the configured one."""
        keep_alive = self._keep_alive if wish.keep_alive is None else wish.keep_alive
        slot = self._slots.get(wish.key)
        if slot is None:
            slot = self._slots[wish.key] = Slot(wish.key, self._patience, keep_alive, since=now, last_used=now)
            return [Changed(slot.key, slot.state)]
        slot.keep_alive = keep_alive
        return self._apply(slot, Order.RETRY, now)

    def _apply(
        self, slot: Slot, event: Order | Fact, now: float, *, error: HyperLlamaError | None = None
    ) -> list[Action]:
        before, effects = slot.state, slot.on(event, now, error=error)
        return self._follow(slot, before, effects)

    def _follow(self, slot: Slot, before: State, effects: tuple[Effect, ...]) -> list[Action]:
        """Keep the books after a step of one instance; returns the step as actions."""
        if Effect.CUT in effects:
            self._leases = {lease: key for lease, key in self._leases.items() if key != slot.key}
        if slot.state is State.GONE:
            del self._slots[slot.key]
        changed: list[Action] = [] if slot.state is before else [Changed(slot.key, slot.state)]
        return changed + [Do(slot.key, effect) for effect in effects]

    # -- questions -------------------------------------------------------------------------------------------------

    def _answers_at_once(self, key: Key, now: float) -> bool:
        slot = self._slots.get(key)
        return slot is not None and (slot.state is State.READY or slot.refusal(now) is not None)

    def _wanted(self, key: Key) -> bool:
        return any(wish.key == key for wish in self._waiting.values())

    def _taken(self) -> int:
        """Places in use now: a START needs one that is not."""
        return sum(slot.state in HOLDS_PLACE for slot in self._slots.values())

    def _promised(self) -> int:
        """Places in use once everybody who leaves has left and everybody who was promised one has come."""
        return sum(slot.state in _PROMISED and not slot.instance.leaving for slot in self._slots.values())


def _copy(error: HyperLlamaError) -> HyperLlamaError:
    """The same error for another request: one object raised in many tasks would chain all their tracebacks."""
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    return copy
