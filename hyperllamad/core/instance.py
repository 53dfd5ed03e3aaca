"""The life of one model instance, as a table.

Owns every change of an instance's state: nothing outside this file may change one.
Must not know processes, sockets, clocks, tasks, queues or any other instance.

An *order* comes from the fleet; one that the state has no cell for is a bug of ours and raises IllegalOrderError.
A *fact* comes from the world and may come at any time; one without a cell is late news and changes nothing.
docs/states.md shows the table as a picture; `python -m tests.core.states_doc` draws it anew.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple


class State(enum.StrEnum):
    """Where an instance is in its life; the values are what people and metrics see."""

    WAITING = "waiting"  # has the promise of a place; others are still leaving it
    STARTING = "starting"  # its child was spawned and does not answer yet
    READY = "ready"  # may be leased
    DRAINING = "draining"  # no new leases, the open ones finish
    SETTLING = "settling"  # the same, but then it sleeps
    SLEEPING = "sleeping"  # its child was told to sleep and gives up its memory
    ASLEEP = "asleep"  # the child lives and holds little; may be woken
    WAKING = "waking"  # its child was told to wake and does not answer yet
    STOPPING = "stopping"  # its child was told to exit; `fate` says what comes then
    BACKOFF = "backoff"  # crashed; pauses before the next try and keeps its place
    FAILED = "failed"  # gave up; holds nothing, kept so that the error can be read
    GONE = "gone"  # over


class Order(enum.Enum):
    """What the fleet decides."""

    START = enum.auto()  # there is room now
    DRAIN = enum.auto()  # leave when the open leases have ended
    STOP = enum.auto()  # leave now
    RETRY = enum.auto()  # try again now, crashes forgotten
    SLEEP = enum.auto()  # give up the memory when the open leases have ended, but stay
    WAKE = enum.auto()  # there is room now


class Fact(enum.Enum):
    """What the world reports."""

    READY = enum.auto()  # the child answers; after a wake: as it did before
    SLEPT = enum.auto()  # the child sleeps
    IDLE = enum.auto()  # the last lease has ended (release() tells it)
    SICK = enum.auto()  # the child lives but no longer answers as it should, or cannot sleep or wake
    LATE = enum.auto()  # the deadline of the state has passed
    EXITED = enum.auto()  # the child has ended, or could not be spawned; another try may succeed
    BROKEN = enum.auto()  # the same, but starting it again would fail the same way


class Effect(enum.Enum):
    """What is to be done to the world, in the order given."""

    SPAWN = enum.auto()
    TERM = enum.auto()  # ask the child to exit
    KILL = enum.auto()  # make it
    CUT = enum.auto()  # end the leases still open, if any
    SLEEP = enum.auto()  # have the child give up its memory
    WAKE = enum.auto()  # have it take its memory again


class Verdict(enum.Enum):
    """A next state that only the event itself can tell."""

    CRASH = enum.auto()  # BACKOFF while the restart budget lasts, then FAILED
    FATE = enum.auto()  # what was decided when the child was told to exit


Target = State | Verdict


class Move(NamedTuple):
    """One cell of the table."""

    to: Target
    effects: tuple[Effect, ...] = ()
    fate: Target = State.GONE  # where the end of the child leads; means something in STOPPING only


def _to(target: Target, *effects: Effect) -> Move:
    return Move(target, effects)


def _stop(*effects: Effect, then: Target = State.GONE) -> Move:
    return Move(State.STOPPING, effects, then)


S, O, F, E = State, Order, Fact, Effect  # noqa: E741  # short names keep the table a table
CRASH, FATE = Verdict.CRASH, Verdict.FATE

TABLE: Mapping[State, Mapping[Order | Fact, Move]] = MappingProxyType(
    {
        S.WAITING: {
            O.START: _to(S.STARTING, E.SPAWN),
            O.DRAIN: _to(S.GONE),
            O.STOP: _to(S.GONE),
        },
        S.STARTING: {
            F.READY: _to(S.READY),
            F.LATE: _stop(E.KILL, then=S.FAILED),  # what was too slow once is not tried again unasked
            F.EXITED: _to(CRASH),
            F.BROKEN: _to(S.FAILED),
            O.DRAIN: _stop(E.TERM),
            O.STOP: _stop(E.TERM),
        },
        S.READY: {
            F.SICK: _stop(E.CUT, E.KILL, then=CRASH),  # not READY any more: nobody is sent to a child being killed
            F.EXITED: _to(CRASH, E.CUT),
            F.BROKEN: _to(S.FAILED, E.CUT),
            O.DRAIN: _to(S.DRAINING),
            O.STOP: _stop(E.CUT, E.TERM),
            O.SLEEP: _to(S.SETTLING),
        },
        S.DRAINING: {
            F.IDLE: _stop(E.TERM),
            F.SICK: _stop(E.CUT, E.TERM),
            F.LATE: _stop(E.CUT, E.TERM),
            F.EXITED: _to(S.GONE, E.CUT),
            F.BROKEN: _to(S.GONE, E.CUT),
            O.DRAIN: _to(S.DRAINING),
            O.STOP: _stop(E.CUT, E.TERM),
        },
        S.SETTLING: {
            F.IDLE: _to(S.SLEEPING, E.SLEEP),
            F.SICK: _stop(E.CUT, E.TERM),
            F.LATE: _stop(E.CUT, E.TERM),
            F.EXITED: _to(S.GONE, E.CUT),
            F.BROKEN: _to(S.GONE, E.CUT),
            O.DRAIN: _to(S.DRAINING),
            O.STOP: _stop(E.CUT, E.TERM),
        },
        S.SLEEPING: {
            F.SLEPT: _to(S.ASLEEP),
            F.SICK: _stop(E.KILL),  # it was sent away to make room: that it cannot sleep must not keep others waiting
            F.LATE: _stop(E.KILL),
            F.EXITED: _to(S.GONE),
            F.BROKEN: _to(S.GONE),
            O.DRAIN: _stop(E.TERM),
            O.STOP: _stop(E.TERM),
        },
        S.ASLEEP: {
            F.SICK: _stop(E.KILL),
            F.EXITED: _to(S.GONE),
            F.BROKEN: _to(S.GONE),
            O.WAKE: _to(S.WAKING, E.WAKE),
            O.DRAIN: _stop(E.TERM),
            O.STOP: _stop(E.TERM),
        },
        S.WAKING: {
            F.READY: _to(S.READY),
            F.SICK: _stop(E.KILL, then=CRASH),  # the same with a fresh start: somebody waits for it
            F.LATE: _stop(E.KILL, then=CRASH),
            F.EXITED: _to(CRASH),
            F.BROKEN: _to(CRASH),  # it did start once
            O.DRAIN: _stop(E.TERM),
            O.STOP: _stop(E.TERM),
        },
        S.STOPPING: {
            F.LATE: _stop(E.KILL, then=FATE),
            F.EXITED: _to(FATE),
            F.BROKEN: _to(FATE),  # we ended it ourselves: how it ended tells nothing about the next start
            O.DRAIN: _stop(),
            O.STOP: _stop(),
        },
        S.BACKOFF: {
            F.LATE: _to(S.STARTING, E.SPAWN),
            O.RETRY: _to(S.STARTING, E.SPAWN),
            O.DRAIN: _to(S.GONE),
            O.STOP: _to(S.GONE),
        },
        S.FAILED: {
            O.RETRY: _to(S.WAITING),
            O.DRAIN: _to(S.GONE),
            O.STOP: _to(S.GONE),
        },
        S.GONE: {},
    },
)

HAS_CHILD = frozenset(state for state, row in TABLE.items() if Fact.EXITED in row)
DEADLINED = frozenset(state for state, row in TABLE.items() if Fact.LATE in row)
HOLDS_PLACE = (HAS_CHILD - {State.ASLEEP}) | {State.BACKOFF}  # counts against the number of models loaded at once


class IllegalOrderError(Exception):
    """The fleet ordered what the state cannot do: a bug in the fleet, never an answer to anybody."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as a value; every method returns the next one."""

    state: State = State.WAITING
    leases: int = 0
    crashes: int = 0  # since it last started fresh
    fate: Target = State.GONE  # STOPPING only: where the end of the child leads

    def lease(self) -> Instance:
        """One more request uses it; raises IllegalOrderError unless READY."""
        if self.state is not State.READY:
            raise IllegalOrderError(f"lease of an instance that is {self}")
        return replace(self, leases=self.leases + 1)

    def release(self) -> tuple[Instance, tuple[Effect, ...]]:
        """One request less; the last one is the fact IDLE."""
        left = replace(self, leases=max(0, self.leases - 1))
        return left.on(Fact.IDLE, budget=0) if left.leases == 0 else (left, ())

    def forgiven(self) -> Instance:
        """Its crashes no longer count."""
        return replace(self, crashes=0)

    def on(self, event: Order | Fact, *, budget: int) -> tuple[Instance, tuple[Effect, ...]]:
        """The next instance and what is to be done; `budget` is how many crashes are followed by a restart.

        Raises IllegalOrderError for an order that this state cannot take.
        """
        if event is Order.DRAIN and self.state is State.READY and not self.leases:
            event = Order.STOP  # nothing to wait for
        if event is Order.SLEEP and self.state is State.READY and not self.leases:
            return replace(self, state=State.SETTLING).on(Fact.IDLE, budget=budget)  # nothing to wait for
        if event is Fact.IDLE and self.leases:
            return self, ()  # not true
        move = TABLE[self.state].get(event)
        if move is None:
            if isinstance(event, Order):
                raise IllegalOrderError(f"{event.name} to an instance that is {self}")
            return self, ()
        crashes = 0 if event is Order.RETRY else self.crashes
        target = self.fate if move.to is FATE else move.to
        if isinstance(target, Verdict):  # CRASH: a fate is never FATE
            crashes += 1
            target = State.BACKOFF if crashes <= budget else State.FAILED
        fate = self.fate if move.fate is FATE else move.fate
        leases = 0 if Effect.CUT in move.effects else self.leases
        return Instance(target, leases, crashes, fate), move.effects

    @property
    def leaving(self) -> bool:
        """Its place will be free without anybody doing anything more."""
        going = {State.DRAINING, State.SETTLING, State.SLEEPING}
        return self.state in going or (self.state is State.STOPPING and self.fate is not CRASH)

    @property
    def evictable(self) -> bool:
        """May be sent away for another model: it has arrived, or failed to, and is not on its way out already."""
        arrived = {State.READY, State.ASLEEP, State.BACKOFF}
        return self.state in arrived or (self.state is State.STOPPING and self.fate is CRASH)

    def __str__(self) -> str:
        counts = ((self.leases, "lease", "leases"), (self.crashes, "crash", "crashes"))
        notes = ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in counts if n)
        return f"{self.state} ({notes})" if notes else str(self.state)
