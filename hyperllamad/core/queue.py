"""Who is served next: the requests that wait, by model, and fair between the clients of a model.

Owns the order of service and the bound of each model's queue; must not know instances, memory or what a lease leads to.
Times are monotonic seconds, given as arguments.

A free slot goes to the client who has the fewest requests running, and among those to the one whose turn it is in a
weighted round.  Once a second client has been seen, one slot is kept for whoever has none: else a client who fills
all of them with long answers would let every other one wait for the end of one.  From then on, too, few requests of one
client are on their way into the engine at once, where it is told when it has taken one in: answers of the same length
end together, and those that follow would all be read before one that comes just behind them.  And where each answer
makes the others slower, nobody has many slots beside one who is present and asks for little: what he would gain by them
is what the other lacks.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from hyperllamad.core.models import NO_TERMS, Key, Terms

SEEN_FOR = 60.0  # seconds a client counts as present after its last request for the model
MEASURED_OVER = 32  # ends of requests by which the pace of a model is judged
LEAST_RETRY, MOST_RETRY = 1.0, 600.0  # seconds


def intake(parallel: int) -> int:
    """Requests of one client that may be on their way into an engine while another client is present.

    A sixteenth of what it answers at once, for taking in is much quicker than answering: one of sixteen costs the
    client 2 % of its answers of a hundred tokens (docs/performance.md).
    """
    return max(1, parallel // 16)


def part(parallel: int) -> int:
    """Slots of one client beside another who asks for little, where each answer makes the others slower.

    A quarter: with one of four, who comes takes part in steps of two answers instead of four (docs/performance.md).
    """
    return max(1, parallel // 4)


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that waits."""

    lease: int
    key: Key
    keep_alive: float | None
    came: float
    deadline: float
    client: str = ""  # "" = nobody who will come again
    weight: float = 1.0
    terms: Terms = NO_TERMS


class Overflow(msgspec.Struct, frozen=True, tag=True):
    """One more request for a model whose queue is full."""

    client: str
    waiting: dict[str, int]  # requests by client
    weights: dict[str, float]


def yields(full: Overflow) -> str | None:
    """The client whose youngest request gives way to the new one; None = the new one is refused.

    Whoever waits with the most requests for his weight gives way, but never to one who would then have as many.
    """

    def load(client: str, extra: int = 0) -> float:
        return (full.waiting.get(client, 0) + extra) / full.weights.get(client, 1.0)

    heaviest = max(full.waiting, key=lambda client: (load(client), client), default=full.client)
    return heaviest if load(heaviest) > load(full.client, 1) else None


@dataclass(slots=True)
class _Line:
    """The requests of one model, and the clients who have been seen with it."""

    waiting: dict[str, dict[int, Wish]] = field(default_factory=dict)  # by client and lease, oldest first
    running: Counter[str] = field(default_factory=Counter)
    coming: dict[str, set[int]] = field(default_factory=dict)  # of those, the leases the engine has not taken in yet
    weights: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)  # clients, and when last
    turn: float = 0.0  # the virtual time of weighted fair queueing
    finish: dict[str, float] = field(default_factory=dict)  # by client: the virtual end of what it was granted
    opens: float = math.inf  # when a free slot that was kept from who waits may be given to him
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=MEASURED_OVER))

    def see(self, client: str, now: float) -> None:
        """The client is present; whoever only loads the model, as the administrator does, is none."""
        if client:
            self.seen[client] = now

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    @property
    def idle(self) -> bool:
        return not self.waiting and not any(self.running.values())


class Queue:
    """Mutable; only the fleet holds one."""

    def __init__(self, *, longest: int) -> None:
        """`longest`: requests that may wait for one model."""
        self.retune(longest)
        self._wishes: dict[int, Wish] = {}  # all that wait, oldest first
        self._lines: dict[Key, _Line] = {}
        self._open: dict[int, Wish] = {}  # granted and not yet ended
        self._pruned_at = 0.0

    def retune(self, longest: int) -> None:
        """Another bound from now on; who waits already goes on."""
        self._longest = max(1, longest)  # a request that loads a model waits too: with none nothing could be loaded

    def hasten(self, latest: float) -> None:
        """Nobody waits longer than until then.

        Else the time of one who comes after a reload could be up before that of those who came earlier, unnoticed.
        """
        for wish in [wish for wish in self._wishes.values() if wish.deadline > latest]:
            self._wishes[wish.lease] = sooner = replace(wish, deadline=latest)
            self._lines[wish.key].waiting[wish.client][wish.lease] = sooner

    # -- events ----------------------------------------------------------------------------------------------------

    def join(self, wish: Wish, now: float) -> None:
        """One more waits; ask overflow() before."""
        if now - self._pruned_at > SEEN_FOR:  # here, because a model that is always busy has no other time for it
            self.prune(now)
        line = self._lines.get(wish.key)
        if line is None:
            line = self._lines[wish.key] = _Line()
        self._wishes[wish.lease] = wish
        line.waiting.setdefault(wish.client, {})[wish.lease] = wish
        line.weights[wish.client] = wish.weight
        line.see(wish.client, now)

    def leave(self, lease: int) -> Wish | None:
        """It does not wait any more; None when it did not."""
        wish = self._wishes.pop(lease, None)
        if wish is not None:
            line = self._lines[wish.key]
            mine = line.waiting[wish.client]
            del mine[lease]
            if not mine:
                del line.waiting[wish.client]
            self._forget(wish.key)
        return wish

    def grant(self, wish: Wish) -> None:
        """It is served now."""
        line = self._lines[wish.key]
        start = max(line.turn, line.finish.get(wish.client, 0.0))
        line.turn, line.finish[wish.client] = start, start + 1.0 / wish.weight
        line.running[wish.client] += 1
        line.coming.setdefault(wish.client, set()).add(wish.lease)
        self._open[wish.lease] = wish
        self.leave(wish.lease)

    def begun(self, lease: int) -> bool:
        """The engine has taken a granted request in; returns whether another of its client's waits."""
        wish = self._open.get(lease)
        if wish is None:
            return False
        line = self._lines[wish.key]
        mine = line.coming.get(wish.client, set())
        if lease not in mine:
            return False
        mine.remove(lease)
        if not mine:
            del line.coming[wish.client]
        return wish.client in line.waiting

    def end(self, lease: int, now: float, *, served: bool = True) -> None:
        """A granted request is over; `served` = not cut off, so that it tells how fast the model is."""
        self.begun(lease)
        wish = self._open.pop(lease, None)
        if wish is None:
            return
        line = self._lines[wish.key]
        line.running[wish.client] -= 1
        line.see(wish.client, now)
        if served:
            line.ends.append(now)
        self._forget(wish.key)

    def _forget(self, key: Key) -> None:
        """Who is owed nothing starts equal again; only when and how fast people came is remembered."""
        line = self._lines[key]
        if line.idle:
            line.turn, line.finish, line.weights = 0.0, {}, {}
            line.running.clear()

    def prune(self, now: float) -> None:
        """Forget clients and models that have not been seen lately."""
        self._pruned_at = now
        for key, line in list(self._lines.items()):
            line.running = +line.running
            line.seen = {client: at for client, at in line.seen.items() if now - at <= SEEN_FOR}
            here = line.seen.keys() | line.waiting.keys() | line.running.keys()
            line.finish = {client: at for client, at in line.finish.items() if client in here}
            line.weights = {client: weight for client, weight in line.weights.items() if client in here}
            if line.idle and not line.seen:
                del self._lines[key]

    # -- whose turn ------------------------------------------------------------------------------------------------

    def next(self, key: Key, terms: Terms, now: float) -> Wish | None:
        """The request for the model that is to be served now, by what its terms say of its slots.

        Where they say tells_begin, begun() is to be called for each that is granted.
        """
        parallel = terms.parallel
        line = self._lines.get(key)
        if line is None or not line.waiting or (parallel and line.running.total() >= parallel):
            return None
        opens = {client: self._opens(line, client, terms, now) for client in line.waiting}
        able = [client for client, at in opens.items() if at <= now]
        line.opens = math.inf if able else min(opens.values())
        if not able:
            return None

        def turn(client: str) -> tuple[float, float, int]:
            start = max(line.turn, line.finish.get(client, 0.0))
            return (line.running[client] / line.weights[client], start, next(iter(line.waiting[client])))

        return next(iter(line.waiting[min(able, key=turn)].values()))

    @staticmethod
    def _opens(line: _Line, client: str, terms: Terms, now: float) -> float:
        """When the client may have one more slot: now, or once nobody it is kept for counts as present any more."""
        parallel, running = terms.parallel, line.running[client]
        if parallel < 2:
            return now
        others: Iterable[str] = ()
        if running >= parallel - 1 or (terms.tells_begin and len(line.coming.get(client, ())) >= intake(parallel)):
            others = line.seen.keys() - {client}
        elif terms.slows and running >= part(parallel):
            others = line.seen.keys() - line.waiting.keys()  # who waits himself is no reason to leave a slot unused
        return max((line.seen[other] + SEEN_FOR for other in others), default=now)

    def slot_opens(self, key: Key) -> float:
        """When a slot that is kept from who waits may be given to him; inf = there is none, or nobody waits for it."""
        line = self._lines.get(key)
        return math.inf if line is None or not line.waiting else line.opens

    # -- bounds ----------------------------------------------------------------------------------------------------

    def overflow(self, key: Key, client: str, weight: float) -> Overflow | None:
        """What must be judged before one more may join(); None = there is room."""
        line = self._lines.get(key)
        if line is None or len(line) < self._longest:
            return None
        waiting = {one: len(wishes) for one, wishes in line.waiting.items()}
        return Overflow(client, waiting, line.weights | {client: weight})

    def youngest(self, key: Key, client: str) -> Wish:
        """Its request that came last."""
        return next(reversed(self._lines[key].waiting[client].values()))

    def pause(self, key: Key, now: float) -> float | None:
        """Seconds until a request that came now would be served, by the pace of the last ones; None = not known."""
        line = self._lines.get(key)
        if line is None or len(line.ends) < 2 or line.ends[-1] <= line.ends[0]:
            return None
        rate = (len(line.ends) - 1) / (max(now, line.ends[-1]) - line.ends[0])
        return min(MOST_RETRY, max(LEAST_RETRY, (len(line) + 1) / rate))

    # -- questions -------------------------------------------------------------------------------------------------

    def oldest_first(self) -> tuple[Wish, ...]:
        """All that wait."""
        return tuple(self._wishes.values())

    def models(self) -> Iterator[Wish]:
        """The oldest request for each model that is waited for, the oldest of all first."""
        if not self._wishes:
            return
        heads = [
            min((next(iter(w.values())) for w in line.waiting.values()), key=_lease, default=None)
            for line in self._lines.values()
        ]
        yield from sorted((head for head in heads if head is not None), key=_lease)

    def of(self, key: Key) -> tuple[Wish, ...]:
        """Those that wait for the model, oldest first."""
        line = self._lines.get(key)
        return (
            () if line is None else tuple(sorted((w for ws in line.waiting.values() for w in ws.values()), key=_lease))
        )

    def waits(self, key: Key) -> bool:
        """Whether anybody waits for the model."""
        line = self._lines.get(key)
        return line is not None and bool(line.waiting)

    def clients(self, key: Key) -> Mapping[str, tuple[int, int]]:
        """Requests running and waiting, by client."""
        line = self._lines.get(key, _Line())
        names = sorted({*line.waiting, *(+line.running)})
        return {name: (line.running[name], len(line.waiting.get(name, ()))) for name in names}

    def deadline(self) -> float:
        """When the next one will have waited too long: the oldest one's, see hasten()."""
        return next((wish.deadline for wish in self._wishes.values()), math.inf)

    def __len__(self) -> int:
        return len(self._wishes)


def _lease(wish: Wish) -> int:
    return wish.lease
