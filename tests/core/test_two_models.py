"""Two models on one GPU that has room for one, walked completely: every order of everything that can happen.

Small enough to be exhaustive: requests come and end, children get ready, sleep, wake, crash and end, memory is
measured; after every step the promises hold, and from every state both models can still be served.
"""

from __future__ import annotations

import pickle
from collections import deque
from dataclasses import dataclass, field

import pytest

from hyperllamad.core.actions import Changed, Do, Grant, Refuse
from hyperllamad.core.admission import Rules
from hyperllamad.core.fleet import Fleet
from hyperllamad.core.instance import HAS_CHILD, Effect, Fact, State
from hyperllamad.core.ledger import Measured
from hyperllamad.core.models import Device, Key, Need, Terms
from tests.core.stage import A, B

GPU, TOTAL, WEIGHTS, ASLEEP = "gpu", 100, 70, 3
OPEN_AT_ONCE = 1  # requests that wait or run, of each model
KEYS = (A, B)
INSTANT = 1e-7  # seconds between two events: everything happens before anything is old


@dataclass
class Table:
    """The fleet, its children, and the truth about the GPU."""

    levels: tuple[int, ...]
    host: int  # bytes of host memory for weights of those who sleep
    hosted: dict[Key, int] = field(default_factory=dict)
    fleet: Fleet = field(init=False)
    children: dict[Key, str] = field(default_factory=dict)  # loading, ready, falling asleep, asleep, waking, ending
    taken: dict[Key, int] = field(default_factory=dict)
    leases: dict[Key, list[int]] = field(default_factory=lambda: {A: [], B: []})  # wanted or granted
    granted: set[int] = field(default_factory=set)
    number: int = 0
    now: float = 0.0

    def __post_init__(self) -> None:
        self.fleet = Fleet(
            max_models=2,
            keep_alive=1e9,
            max_queue=9,
            load_timeout=1e9,
            stop_timeout=1e9,
            drain_timeout=1e9,
            restart_budget=1000,
            rules=Rules(measured=True, sleep_memory=self.host),
        )

    @property
    def terms(self) -> Terms:
        return Terms(Need(WEIGHTS, asleep=ASLEEP), gpu=True, sleep_levels=self.levels)

    # -- what can happen -------------------------------------------------------------------------------------------

    def events(self) -> list[tuple[str, Key | None]]:
        found: list[tuple[str, Key | None]] = []
        for key in KEYS:
            if len(self.leases[key]) < OPEN_AT_ONCE:
                found.append(("want", key))
            if self.leases[key]:
                found.append(("release", key))
            doing = self.children.get(key)
            if doing in {"loading", "falling asleep", "waking", "ending"}:
                found.append(("done", key))
            if doing in {"ready", "asleep"}:
                found.append(("crash", key))
        if self.fleet.needs_measure:
            found.append(("measure", None))
        if any(view.state is State.BACKOFF for view in self.fleet.views(0.0)):
            found.append(("late", None))
        return found

    def happen(self, what: str, key: Key | None) -> None:
        fleet = self.fleet
        self.now += INSTANT
        if what == "measure":
            device = Device(GPU, 0, TOTAL, TOTAL - sum(self.taken.values()))
            taken = {one: {GPU: count} for one, count in self.taken.items()}
            self.do(fleet.measure(Measured(self.now, (device,), taken), self.now))
            return
        if what == "late":
            for view in fleet.views(0.0):
                if view.state is State.BACKOFF:
                    self.do(fleet.report(view.key, Fact.LATE, self.now))
            return
        assert key is not None
        if what == "want":
            self.number += 1
            self.leases[key].append(self.number)
            self.do(fleet.want(self.number, key, self.now, keep_alive=None, terms=self.terms))
        elif what == "release":
            lease = self.leases[key].pop(0)
            self.granted.discard(lease)
            self.do(fleet.release(lease, self.now))
        elif what == "crash":
            self.end(key)
        else:
            self.done(key)

    def done(self, key: Key) -> None:
        doing = self.children[key]
        if doing == "ending":
            self.end(key)
        elif doing == "falling asleep":
            self.children[key], self.taken[key] = "asleep", ASLEEP
            self.do(self.fleet.report(key, Fact.SLEPT, self.now))
        else:
            self.children[key], self.taken[key] = "ready", WEIGHTS
            self.do(self.fleet.report(key, Fact.READY, self.now))

    def end(self, key: Key) -> None:
        del self.children[key]
        del self.taken[key]
        self.hosted.pop(key, None)
        self.do(self.fleet.report(key, Fact.EXITED, self.now))

    def do(self, actions: list[object]) -> None:
        for action in actions:
            match action:
                case Grant(lease, key):
                    assert self.children[key] == "ready", "granted what is not ready"
                    self.granted.add(lease)
                case Refuse():
                    raise AssertionError("nothing here is a reason to refuse")
                case Do(key, Effect.SPAWN):
                    assert key not in self.children
                    self.children[key], self.taken[key] = "loading", WEIGHTS
                case Do(key, Effect.SLEEP):
                    assert self.children[key] == "ready"
                    self.children[key], self.hosted[key] = "falling asleep", WEIGHTS
                case Do(key, Effect.WAKE):
                    assert self.children[key] == "asleep"
                    self.children[key], self.taken[key] = "waking", WEIGHTS
                case Do(key, Effect.CUT):
                    cut = [lease for lease in self.leases[key] if lease in self.granted]
                    self.leases[key] = [lease for lease in self.leases[key] if lease not in cut]
                    self.granted -= set(cut)
                case Do(key, Effect.TERM | Effect.KILL):
                    assert self.children[key] in {"ready", "asleep"}, "ended while it arrives"
                    self.children[key] = "ending"
                case Changed():
                    pass
        self.fleet.records()  # else each state would drag its whole history along
        self.check()

    def check(self) -> None:
        assert sum(self.taken.values()) <= TOTAL, "the GPU is promised twice"
        assert sum(self.hosted.values()) <= self.host, "host memory is promised twice"
        reserved = [slot.reservation for slot in self.fleet._slots.values() if slot.reservation is not None]
        ledger = self.fleet._admission.ledger.live
        assert set(map(id, reserved)) == set(map(id, ledger)), "the ledger is not the sum of its reservations"
        states = {view.key: view.state for view in self.fleet.views(0.0)}
        assert self.children.keys() == {key for key, state in states.items() if state in HAS_CHILD}
        for key in KEYS:
            waits = [lease for lease in self.leases[key] if lease not in self.granted]
            assert not (waits and states.get(key) is State.READY), "a ready one lets somebody wait"

    # -- as a state ------------------------------------------------------------------------------------------------

    def node(self) -> tuple[object, ...]:
        """What tells two moments apart that can lead to different things."""
        rank = {lease: n for n, lease in enumerate(sorted(n for leases in self.leases.values() for n in leases))}
        leases = tuple(tuple((rank[n], n in self.granted) for n in self.leases[key]) for key in KEYS)
        states = tuple((view.key, view.state) for view in self.fleet.views(0.0))
        slots = tuple(
            (slot.instance.fate, slot.instance.crashes > 0, slot.called, slot.host_taken)
            for slot in self.fleet._slots.values()
        )
        ledger = self.fleet._admission.ledger
        live = tuple((one.key, one.left, one.taken.get(GPU)) for one in ledger.live)
        ended = frozenset((one.key, one.taken.get(GPU), ledger._heard(one)) for one in ledger.ended)
        free = ledger.devices[GPU].free if ledger.devices else None
        children = tuple(sorted(self.children.items()))
        return (leases, states, slots, live, ended, free, ledger.fresh(self.now), children, self.fleet.needs_measure)


def serves(table: Table, key: Key) -> bool:
    """Whether a request for the model is granted if from now on nobody asks for anything and everything gets done."""
    table = pickle.loads(pickle.dumps(table))
    if not table.leases[key]:
        table.happen("want", key)
    for _ in range(60):
        if any(lease in table.granted for lease in table.leases[key]):
            return True
        other = A if key is B else B
        ends = [("release", other)] if any(lease in table.granted for lease in table.leases[other]) else []
        goes_on = [event for event in table.events() if event[0] in {"done", "late"}] + ends
        steps = goes_on + [event for event in table.events() if event[0] == "measure"]
        if not steps:
            return False
        table.happen(*steps[0])
    return False


@pytest.mark.timeout(300)  # seconds of computing, on a machine that may have other things to do
@pytest.mark.parametrize(
    ("levels", "host"),
    [((), 0), ((1,), 0), ((1,), WEIGHTS), ((1,), 2 * WEIGHTS)],
    ids=["stopping", "no host memory", "host memory for one", "for both"],
)
def test_every_order_of_events(levels: tuple[int, ...], host: int) -> None:
    first = Table(levels, host)
    seen, todo = {first.node()}, deque([first])
    states: set[State] = set()
    while todo:
        table = todo.popleft()
        states |= {view.state for view in table.fleet.views(0.0)}
        for key in KEYS:
            assert serves(table, key), (key, table.fleet, table.children)
        for what, key in table.events():
            after = pickle.loads(pickle.dumps(table))
            after.happen(what, key)
            if (node := after.node()) not in seen:
                seen.add(node)
                todo.append(after)
    reached = {State.WAITING, State.STARTING, State.READY, State.DRAINING, State.STOPPING, State.BACKOFF}
    if host >= 2 * WEIGHTS:  # nobody is ever stopped for another
        reached -= {State.DRAINING, State.STOPPING}
    if levels and host:
        reached |= {State.SETTLING, State.SLEEPING, State.ASLEEP, State.WAKING}
    assert states == reached
    assert len(seen) > 100
