"""A small world around a fleet: children that obey, crash, dawdle or hang, clients that come and hang up.

It plays a Script on a clock of its own and checks after every event that the fleet keeps its promises.  What it saw
is counted in `seen`, so that a test can tell whether its scripts reached what they are for.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from hyperllamad.core.actions import Action, Changed, Do, Grant, Refuse, View
from hyperllamad.core.errors import BusyError, ClosingError, HyperLlamaError, LoadFailedError, LoadTimeoutError
from hyperllamad.core.fleet import Fleet
from hyperllamad.core.instance import CRASH, HAS_CHILD, Effect, Fact, State
from hyperllamad.core.models import Key
from tests.core.agenda import Agenda
from tests.core.script import Ask, Birth, Meddling, Script

LOAD, STOP, DRAIN, HELD = 60.0, 10.0, 40.0, 5.0  # seconds; the last is how long a failure answers for new requests
ARRIVING = {State.WAITING, State.STARTING}


@dataclass
class Child:
    birth: Birth
    ready: bool = False
    told: bool = False  # to exit


@dataclass
class World:
    script: Script
    now: float = 1000.0
    seen: Counter[str] = field(default_factory=Counter)
    children: dict[Key, Child] = field(default_factory=dict)
    pending: dict[int, tuple[Key, float]] = field(default_factory=dict)  # lease -> what for, until when
    open: dict[int, Key] = field(default_factory=dict)  # granted leases whose client is still there
    uses: dict[int, float] = field(default_factory=dict)  # how long each client keeps its lease
    told: dict[Key, set[str]] = field(default_factory=dict)  # explanations given for each key
    states: dict[Key, State] = field(default_factory=dict)  # as Changed tells it; no entry = GONE
    failed_at: dict[Key, float] = field(default_factory=dict)
    kept_zero: set[Key] = field(default_factory=set)  # told to go when idle, and busy then
    load_timeout: float = LOAD
    event: str = ""  # what is being handled

    def __post_init__(self) -> None:
        s = self.script
        self.fleet = self.make_fleet()
        self._agenda = Agenda()
        self.at = self._agenda.add
        self._born = self._asked = self._told = 0
        self.closed = False
        for ask in s.asks:
            self.at(self.now + ask.at, partial(self.ask, ask))
        for meddling in s.meddling:
            self.at(self.now + meddling.at, partial(self.meddle, meddling))
        self.at(self.now + s.close_at, self.close)

    def make_fleet(self, **more: Any) -> Fleet:
        return Fleet(**self.numbers(), **more)

    def numbers(self) -> dict[str, Any]:
        """How the fleet is configured now."""
        s = self.script
        return {
            "max_models": s.max_models,
            "keep_alive": s.keep_alive,
            "max_queue": s.max_queue,
            "load_timeout": self.load_timeout,
            "stop_timeout": STOP,
            "drain_timeout": DRAIN,
            "restart_budget": s.restart_budget,
        }

    # -- time ------------------------------------------------------------------------------------------------------

    def play(self, seconds: float = 20_000) -> None:
        """Until nothing more happens."""
        end = self.now + seconds
        while True:
            deadline = self.fleet.next_deadline()
            tick_at = math.inf if deadline is None else deadline + self.script.lag
            event_at = self._agenda.soonest()
            if min(tick_at, event_at) > end:
                break
            self.now = max(self.now, min(tick_at, event_at))
            self.check_timer()
            if event_at <= tick_at:
                self._agenda.happen()
            else:
                self.tick()
        self.check_end()

    def tick(self) -> None:
        self.do("tick", self.fleet.tick(self.now))
        deadline = self.fleet.next_deadline()
        assert deadline is None or deadline > self.now, "the timer does not move on"
        assert self.fleet.tick(self.now) == [], "something was left to be decided"

    # -- clients and administrators --------------------------------------------------------------------------------

    def ask(self, ask: Ask) -> None:
        self._asked += 1
        lease = self._asked
        state = self.states.get(ask.key)
        self.pending[lease] = (ask.key, self.now + self.load_timeout)
        self.uses[lease] = ask.use
        self.at(self.now + ask.bears, lambda: self.hang_up(lease))
        actions = self.want(lease, ask)
        if state in {State.DRAINING, State.STOPPING} and not self.closed and not actions:
            self.seen["waits for a leaving one"] += 1
        self.do("want", actions)

    def want(self, lease: int, ask: Ask) -> list[Action]:
        return self.fleet.want(lease, ask.key, self.now, keep_alive=ask.keep_alive)

    def hang_up(self, lease: int) -> None:
        was_waiting = self.pending.pop(lease, None)
        self.seen["hang-ups while waiting"] += was_waiting is not None
        self.open.pop(lease, None)
        self.do("release", self.fleet.release(lease, self.now))

    def meddle(self, meddling: Meddling) -> None:
        what, key = meddling.what, meddling.key
        if what in {"unload", "cut"}:
            actions = self.fleet.unload(key, self.now, cut=what == "cut")
        elif what == "retry":
            actions = self.fleet.retry(key, self.now)
        elif what == "keep":
            actions = self.fleet.keep(key, meddling.keep_alive, self.now)
        elif what == "reload":
            actions = self.reload(meddling.load_timeout)
        elif key not in self.children or what == "IDLE":
            actions = self.fleet.report(key, Fact[what], self.now)
        else:
            return
        busy = key in self.open.values() and self.states[key] is State.READY
        if what == "keep" and busy and meddling.keep_alive == 0:
            self.kept_zero.add(key)
        self.do(what, actions)

    def reload(self, load_timeout: float) -> list[Action]:
        """Who waits already does so no longer than one who comes now."""
        self.load_timeout = load_timeout
        latest = self.now + load_timeout
        self.seen["waits cut shorter"] += sum(until > latest for _, until in self.pending.values())
        self.pending = {lease: (key, min(until, latest)) for lease, (key, until) in self.pending.items()}
        return self.fleet.retune(self.now, **self.numbers())

    def close(self) -> None:
        self.closed = True
        self.do("close", self.fleet.close(self.now))

    # -- children --------------------------------------------------------------------------------------------------

    def spawn(self, key: Key) -> None:
        assert key not in self.children, "two children for one key"
        birth = self.script.births[self._born % len(self.script.births)]
        self._born += 1
        child = self.children[key] = Child(birth)
        self.at(self.now + birth.ready, lambda: self.tell(key, child, Fact.READY))
        self.at(self.now + birth.turns, lambda: self.tell(key, child, birth.how))

    def signal(self, key: Key, effect: Effect) -> None:
        assert key in self.children, f"{effect.name} to a dead child"
        child = self.children[key]
        if not child.ready and effect is Effect.TERM:
            assert self.event in {"unload", "cut", "close"}, "an arriving model was evicted"
            self.seen["unloads while arriving"] += 1
        self.seen["kills of who was told before"] += effect is Effect.KILL and child.told
        child.told = True
        after = child.birth.obeys if effect is Effect.TERM else child.birth.dies
        self.at(self.now + after, lambda: self.tell(key, child, Fact.EXITED))

    def tell(self, key: Key, child: Child, fact: Fact) -> None:
        """Something is true of a child, if it is still there."""
        if self.children.get(key) is not child:
            return
        error = None
        if fact is Fact.READY:
            child.ready = True
        else:
            error = LoadFailedError(f"{key.digest[0]} {fact.name} {self._told}")
            self._told += 1
            self.told.setdefault(key, set()).add(error.message)
        if fact in {Fact.EXITED, Fact.BROKEN}:
            del self.children[key]
            self.seen["crashes"] += not child.told
        self.seen["sick"] += fact is Fact.SICK
        self.do(fact.name, self.fleet.report(key, fact, self.now, error=error))

    # -- what the fleet orders -------------------------------------------------------------------------------------

    def do(self, event: str, actions: list[Action]) -> None:
        self.event = event
        for action in actions:
            match action:
                case Grant(lease, key):
                    self.granted(lease, key)
                case Refuse(lease, error):
                    self.refused(lease, error)
                case Changed(key, state):
                    self.changed(key, state)
                case Do(key, Effect.SPAWN):
                    self.spawn(key)
                case Do(key, Effect.CUT):
                    self.cut(key)
                case Do(key, effect):
                    self.signal(key, effect)
        self.check_evictions(actions)
        self.check()

    def changed(self, key: Key, state: State) -> None:
        before = self.states.pop(key, State.GONE)
        assert state is not before
        if (before, state) == (State.WAITING, State.GONE) and self.event not in {"unload", "cut", "close"}:
            assert self.oldest(key) is None, "a promise was taken back"
        self.seen[f"{self.event}: {before} > {state}"] += 1
        if state is not State.GONE:
            self.states[key] = state
        if state is State.FAILED:
            self.failed_at[key] = self.now
        if state is not State.READY:
            self.kept_zero.discard(key)

    def cut(self, key: Key) -> None:
        cut = [lease for lease, used in self.open.items() if used == key]
        self.seen["cut requests"] += len(cut)
        for lease in cut:
            del self.open[lease]  # its client releases it later all the same

    def granted(self, lease: int, key: Key) -> None:
        wanted, _ = self.pending.pop(lease)
        child = self.children.get(key)
        assert wanted == key
        assert child is not None, "granted a dead child"
        assert child.ready, "granted a child that does not answer"
        assert not child.told, "granted a child that was told to exit"
        self.check_turn(lease, key)
        self.open[lease] = key
        self.seen["grants"] += 1
        self.seen["grants at once"] += self.event == "want"
        self.seen["uses after keep(0)"] += key in self.kept_zero
        self.at(self.now + self.uses[lease], lambda: self.hang_up(lease))

    def refused(self, lease: int, error: HyperLlamaError) -> None:
        key, deadline = self.pending.pop(lease)
        self.seen[type(error).__name__] += 1
        failed = self.now < self.failed_at.get(key, -math.inf) + HELD and self.states.get(key) is State.FAILED
        match error:
            case BusyError():
                assert self.event == "want"
                waiting = [wanted for wanted, _ in self.pending.values() if wanted == key]
                assert len(waiting) == self.script.max_queue
            case ClosingError():
                assert self.closed
            case LoadTimeoutError():
                assert failed or self.now >= deadline
            case _:
                assert failed
                assert error.message in self.told[key]
                self.seen["refusals by an older failure"] += self.failed_at[key] < self.now

    # -- promises --------------------------------------------------------------------------------------------------

    def oldest(self, key: Key) -> int | None:
        """The request that has waited longest for `key`."""
        return min((lease for lease, (wanted, _) in self.pending.items() if wanted == key), default=None)

    def check_timer(self) -> None:
        """The clock was set: nothing was due before that should have made the fleet ask for a tick."""
        due = [deadline for _, deadline in self.pending.values()]
        due += [view.expires_at or 0 for view in self.fleet.views(self.now) if self.rests(view)]
        assert all(at + self.script.lag >= self.now for at in due), "a deadline has passed unnoticed"

    @staticmethod
    def rests(view: View) -> bool:
        return view.state is State.READY and not view.leases

    def check_evictions(self, actions: list[Action]) -> None:
        """A newcomer's WAITING comes right behind what was ordered of the one that is sent away for it."""
        steps = [action for action in actions if isinstance(action, Changed)]
        for one, other in pairwise(steps):
            left = one.state in {State.DRAINING, State.STOPPING, State.GONE}
            if other.state is State.WAITING and left and one.key != other.key:
                self.seen["evictions"] += 1
                older, newcomer = self.oldest(one.key), self.oldest(other.key)
                fair = older is None or newcomer is None or newcomer < older
                assert fair or one.state is not State.GONE, "evicted from its pause in spite of an older request"

    def check(self) -> None:
        """What must hold after every event."""
        views = {view.key: view for view in self.fleet.views(self.now)}
        assert {key: view.state for key, view in views.items()} == self.states, "a change was not told"
        assert self.loaded() <= self.script.max_models, "too many children"
        assert self.children.keys() == {key for key, state in self.states.items() if state in HAS_CHILD}
        assert self.fleet._service.queue._wishes.keys() == self.pending.keys()
        assert max(Counter(key for key, _ in self.pending.values()).values(), default=0) <= self.script.max_queue
        leases = Counter(self.open.values())
        assert self.fleet._service.leases == self.open
        for key, view in views.items():
            waiting = [lease for lease, (wanted, _) in self.pending.items() if wanted == key]
            assert view.leases == leases[key]
            assert view.waiting == len(waiting)
            assert view.since <= self.now
            if view.state is State.READY:
                assert not waiting or self.is_full(key), "a ready instance let somebody wait"
                assert not self.rests(view) or (view.expires_at or 0) > self.now, "one outstayed its keep-alive"
            elif view.state is State.FAILED:
                assert view.error is not None
                assert not waiting or self.now >= view.since + HELD
            elif view.state is State.WAITING:
                assert waiting, "a promise that nobody waits for"
        late = [lease for lease, (_, deadline) in self.pending.items() if deadline + self.script.lag < self.now]
        assert not late, "somebody waits longer than his deadline"
        self.check_places()

    def check_turn(self, lease: int, key: Key) -> None:
        assert all(other != key or n > lease for n, (other, _) in self.pending.items()), (
            "somebody older waits for it too"
        )

    def loaded(self) -> int:
        return len(self.children)

    def is_full(self, key: Key) -> bool:
        """Whether a ready instance may let requests wait."""
        return False

    def check_places(self) -> None:
        """No place is promised twice, and none is withheld from who waits without a promise."""
        slots = self.fleet._slots.values()
        leaving = [s for s in slots if s.state is State.STOPPING and s.instance.fate is not CRASH]
        leaving += [s for s in slots if s.state in {State.DRAINING, State.FAILED}]
        promised = [s for s in slots if s not in leaving]
        assert len(promised) <= self.script.max_models, "promised more places than there are"
        older: set[Key] = set()
        for key in dict.fromkeys(key for key, _ in self.pending.values()):
            if self.states.get(key, State.FAILED) is State.FAILED:
                assert len(promised) == self.script.max_models, "a place is free and somebody waits"
                for slot in promised:
                    assert slot.state in ARRIVING or slot.key in older, "somebody could have made room"
                self.seen["waits without a promise"] += 1
            older.add(key)
        room = sum(s.state in HAS_CHILD or s.state is State.BACKOFF for s in slots) < self.script.max_models
        assert not (room and any(s.state is State.WAITING for s in slots)), "there is room and somebody waits for it"

    def check_end(self) -> None:
        """What must hold when nothing more happens."""
        assert not self.pending
        assert not self.open
        rest = set(self.states.values())
        assert rest <= {State.READY, State.ASLEEP, State.FAILED}, rest
        assert not (self.closed and rest)
        causes = self._asked + self.seen["crashes"] + self.seen["sick"] + len(self.script.meddling)
        assert self.seen["evictions"] <= causes, "more evictions than causes"
