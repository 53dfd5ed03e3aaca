"""One key's instance with its clocks: deadline, keep-alive, last use, and why it failed.

Owns what time does to a single instance; must not know the queue, the leases by number or other instances.
Times are monotonic seconds, given as arguments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hyperllamad.core.actions import View
from hyperllamad.core.errors import HyperLlamaError, LoadFailedError
from hyperllamad.core.instance import HOLDS_PLACE, Effect, Fact, Instance, Order, State
from hyperllamad.core.ledger import Reservation
from hyperllamad.core.models import NO_TERMS, Key, Placement, Terms
from hyperllamad.core.patience import CRASHES_FORGOTTEN, FAILURE_HELD, TENURE, Patience
from hyperllamad.core.question import Tenant

_ARRIVING = frozenset({State.WAITING, State.STARTING})
_CHILDLESS = frozenset({State.WAITING, State.BACKOFF, State.FAILED, State.GONE})
_RESTING = frozenset(
    {State.READY, State.ASLEEP, State.BACKOFF}
)  # where an instance without leases lets its keep-alive run out


@dataclass(slots=True)
class Slot:
    """Mutable; only the fleet holds one."""

    key: Key
    patience: Patience
    keep_alive: float  # seconds it stays after its last lease; 0 = goes as soon as it is idle, inf = stays
    since: float  # of the state
    last_used: float
    instance: Instance = field(default_factory=Instance)
    deadline: float | None = None  # of the state
    expires_at: float | None = None  # None = was never idle; while leased it keeps its old value, as Ollama's does
    error: HyperLlamaError | None = None
    terms: Terms = NO_TERMS
    placement: Placement | None = None  # promised or taken; None = never was
    reservation: Reservation | None = None  # in the ledger, from its start to its end
    called: bool = False  # ASLEEP only: it has the promise of a place to wake in
    level: int = 0  # of the sleep it was last told to
    host_taken: int = 0  # host memory that its weights take, or took and were not given back
    protected_until: float | None = None  # from eviction, while requests older than the newcomer's wait for it

    @property
    def state(self) -> State:
        return self.instance.state

    def on(self, event: Order | Fact, now: float, *, error: HyperLlamaError | None = None) -> tuple[Effect, ...]:
        """Let something happen to the instance; returns what is to be done.  `error` explains a fact."""
        before = self._forgiven(now)
        after, effects = before.on(event, budget=self.patience.restart_budget)
        self._become(after, effects, now)
        explained = before.state is State.STOPPING and self.error is not None  # why we ended it, not how it ended
        if event is Fact.LATE and before.state is State.STARTING:
            self.error = self.patience.too_late(before)
        elif error is not None and after is not before and not explained:
            self.error = error
        if after.state is State.FAILED and self.error is None:
            hint = "`hyperllamactl logs` shows what it wrote last"
            self.error = LoadFailedError("the engine ended without giving a reason", hint=hint)
        return effects

    def grant(self, now: float, keep_alive: float | None) -> None:
        """One more request uses it; a keep_alive of its own replaces the instance's."""
        self.instance = self.instance.lease()
        self.last_used = now
        if keep_alive is not None:
            self.keep_alive = keep_alive

    def release(self, now: float) -> tuple[Effect, ...]:
        """One request less; returns what is to be done."""
        after, effects = self.instance.release()
        self.last_used = now
        self._become(after, effects, now)
        return effects

    def keep(self, keep_alive: float, now: float) -> None:
        """A keep_alive without a request: the timer starts again, unless the instance is in use or still arriving."""
        self.keep_alive = keep_alive
        if not self.instance.leases:
            self.expires_at = None if self.state in _ARRIVING else now + keep_alive
        elif keep_alive == 0:
            self.expires_at = now  # it goes after its last request; clients show a time in the past as "Stopping..."

    def rest(self, now: float) -> None:
        """Start the timer of an instance that got ready and was not wanted by anybody any more."""
        one = self.instance
        if one.state is State.READY and not one.leases and self.expires_at is None:
            self.expires_at = now + self.keep_alive

    def expiry(self) -> float:
        """When the keep-alive runs out; inf = not while things are as they are."""
        resting = self.instance.state in _RESTING and not self.instance.leases
        return self.expires_at if resting and self.expires_at is not None else math.inf

    def refusal(self, now: float) -> HyperLlamaError | None:
        """It failed a moment ago: the answer is the same error, without another try."""
        return self.error if self.state is State.FAILED and now < self.since + FAILURE_HELD else None

    def crashes(self, now: float) -> int:
        """Crashes that still count."""
        return self._forgiven(now).crashes

    def shown_expiry(self, now: float) -> float | None:
        """When it goes, as `ps` shows it: inf = never, None = not known; in the past = is going."""
        if self.state in {State.DRAINING, State.STOPPING}:
            return self.since
        if self.expires_at is None and self.state is State.READY:
            return now + self.keep_alive  # in its first use: moves on until that ends
        return None if self.state is State.FAILED else self.expires_at

    # -- memory ----------------------------------------------------------------------------------------------------

    @property
    def promised(self) -> bool:
        """It has a place that it does not hold yet."""
        return self.state is State.WAITING or self.called

    @property
    def takes_place(self) -> bool:
        """Counts against the number of models now."""
        return self.state in HOLDS_PLACE

    @property
    def devices(self) -> frozenset[str]:
        return frozenset(share.device for share in self.placement.shares) if self.placement else frozenset()

    @property
    def levels(self) -> tuple[int, ...]:
        """At which it could sleep."""
        return self.terms.sleep_levels

    def sleeps_at(self, level: int) -> None:
        """It is about to be told to."""
        self.level = level
        if level == 1:
            self.host_taken = self.terms.need.weights

    def host_memory(self) -> int:
        """Host memory that sleeping at level 1 would take in addition."""
        return self.terms.need.weights - self.host_taken

    def host_coming(self, now: float) -> int:
        """Host memory that it gives back within the time it has to end, because it was told to."""
        return self.host_taken if self.state is State.STOPPING and now < self.since + self.patience.stop_timeout else 0

    def tenant(self, *, evictable: bool, waited: bool) -> Tenant:
        """As placement sees it: what it will hold once all that is under way is done.

        `waited`: somebody waits for it, so it is not stopped for host memory.
        """
        leaves = self.instance.leaving
        sleeps = self.state in {State.SETTLING, State.SLEEPING}
        holds: dict[str, int] = {}
        for share in self.placement.shares if self.placement else ():
            if leaves:
                holds[share.device] = min(share.bytes, self.terms.need.asleep) if sleeps else 0
            elif self.promised or self.reservation is None:
                holds[share.device] = share.bytes
            else:
                holds[share.device] = self.reservation.holds(share.device)
        return Tenant(
            key=str(self.key),
            holds=holds,
            place=self.promised or (self.takes_place and not leaves),
            evictable=evictable,
            pinned=self.terms.pinned,
            leases=self.instance.leases,
            last_used=self.last_used,
            levels=self.levels if self.state is State.READY else (),
            asleep=self.terms.need.asleep,
            weights=self.host_memory(),
            hosted=self.host_taken if self.state is State.ASLEEP and not waited else 0,
            load_seconds=self.terms.load_seconds,
            wake_seconds=self.terms.wake_seconds,
        )

    # -- times that others ask for ---------------------------------------------------------------------------------

    def tenure_ends(self) -> float:
        """Until when requests that wait for it keep it from being sent away for younger ones; inf = always."""
        return self.since + max(TENURE, 2 * self.terms.load_seconds) if self.state is State.READY else math.inf

    def view(self, now: float, clients: Mapping[str, tuple[int, int]]) -> View:
        """As people see it; `clients` are the running and waiting requests of each."""
        return View(
            key=self.key,
            state=self.state,
            leases=self.instance.leases,
            waiting=sum(waiting for _, waiting in clients.values()),
            crashes=self.crashes(now),
            since=self.since,
            expires_at=self.shown_expiry(now),
            error=self.error,
            keep_alive=self.keep_alive,
            placement=self.placement,
            level=self.level if self.state is State.ASLEEP else 0,
            clients=clients,
            pinned=self.terms.pinned,
            sleep_levels=self.levels,
        )

    def _forgiven(self, now: float) -> Instance:
        calm = self.state is State.READY and now - self.since >= CRASHES_FORGOTTEN
        return self.instance.forgiven() if calm else self.instance

    def _become(self, after: Instance, effects: tuple[Effect, ...], now: float) -> None:
        """Take the next instance and set the clocks that depend on the step."""
        before, self.instance = self.instance, after
        if before.leases and not after.leases:
            self.expires_at = now + self.keep_alive
        if after.state is not before.state or Effect.KILL in effects:
            self.deadline = self.patience.deadline(after, now)
        if after.state is not before.state:
            self.since = now
            if after.state is not State.ASLEEP:
                self.called = False
            if after.state in _CHILDLESS:
                self.host_taken = 0
            if after.state is State.WAITING:  # a failed one is made new
                self.last_used, self.error, self.expires_at = now, None, None
            elif after.state is State.READY:
                self.last_used, self.error = now, None
