"""Performs what the fleet decided, in its order: engines are told, requests answered, decisions kept, people shown.

Owns the leases that are not answered yet, and knows when all is over.  Decides nothing; every event goes through
feed(), a plain function: between reading and changing state nothing waits, so nothing needs a lock.  The engines are
crew.py's, memory weighing.py's, the time alarm.py's, and what people see overview.py's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import anyio
import anyio.abc

from hyperllamad.config.tables import Config
from hyperllamad.core.actions import Action, Changed, Do, Grant, Refuse, View
from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.fleet import Fleet
from hyperllamad.core.instance import Effect, Fact, State
from hyperllamad.core.models import Key
from hyperllamad.engines.homes import Homes
from hyperllamad.supervision.accounts import Accounts
from hyperllamad.supervision.alarm import Alarm
from hyperllamad.supervision.crew import Crew
from hyperllamad.supervision.events import Events
from hyperllamad.supervision.lease import Lease
from hyperllamad.supervision.overview import Overview
from hyperllamad.supervision.probe import Pace
from hyperllamad.supervision.weighing import Weighing
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.supervision")


class Performer:
    """Mutable; only the supervisor holds one.  start() first, then feed()."""

    def __init__(
        self, config: Config, homes: Homes, fleet: Fleet, accounts: Accounts, clock: Callable[[], float], *, pace: Pace
    ) -> None:
        self._fleet = fleet
        self._accounts = accounts
        self._clock = clock
        self.crew = Crew(
            config,
            homes,
            pace,
            view=self._view,
            report=self._report,
            progressed=lambda key: self.overview.tell(key, State.STARTING),
            weigh=self._weigh if accounts.counted else None,
        )
        self.weighing = Weighing(fleet, accounts, clock, guards=self.crew.guards, feed=self.feed)
        self.overview = Overview(fleet, self.crew, accounts, clock)
        self.alarm = Alarm(clock, fleet.next_deadline, lambda: self.feed(fleet.tick(clock())))
        self.events = Events()
        self.leases: dict[int, Lease] = {}  # those not yet answered
        self._tasks: anyio.abc.TaskGroup | None = None
        self.closing = False  # nobody new is served any more
        self.quiet = anyio.Event()  # closing, and no request is open any more
        self.empty = anyio.Event()  # closing, and nothing is left; or it was given up

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Work in these tasks, until they are cancelled."""
        self._tasks = tasks
        tasks.start_soon(self.alarm.run)
        self.crew.start(tasks)

    def stop(self) -> None:
        """Nothing more will happen."""
        self.overview.close()
        self.events.close()
        self.empty.set()

    def feed(self, actions: Sequence[Action]) -> None:
        """Perform them all."""
        refused: dict[tuple[str, str], int] = {}
        for action in actions:
            match action:  # by keywords: see core/actions.py
                case Changed(key=key, state=state):
                    self._changed(key, state)
                case Do(key=key, effect=Effect.SPAWN):
                    waiting = (lease for lease in self.leases.values() if lease.key == key)
                    self.crew.spawn(key, (lease.model.name.key for lease in waiting))
                case Do(key=key, effect=effect, level=level):
                    cause = "the server is shutting down" if self.closing else "the model was unloaded"
                    self.crew.do(key, effect, level, cause)
                case Grant(lease=number, key=key):
                    upstream = self.crew.lives[key].upstream
                    assert upstream is not None  # noqa: S101 - it is made before READY is reported
                    self.leases.pop(number).answer(upstream)
                case Refuse(lease=number, error=error):
                    lease = self.leases.pop(number)
                    lease.answer(error)
                    said = str(lease.model.name), str(error)
                    refused[said] = refused.get(said, 0) + 1
        for (name, why), count in refused.items():
            log.info("refused: %s", why, extra=fields(model=name, requests=count))
        if records := self._fleet.records():
            self.events.add(records, self.crew.name_of, time.time() - self._clock())
        if self.closing or any(_may_free(action) for action in actions):
            self._tidy()
        self._follow_up()

    def _changed(self, key: Key, state: State) -> None:
        self._accounts.changed(key, state, self.crew.placement(key), self._clock())
        if state is State.READY:
            self.crew.ready(key)
        if state in {State.FAILED, State.GONE}:
            self.crew.over(key)
        self.overview.tell(key, state)

    def _tidy(self) -> None:
        """Forget plans that nobody needs any more; notice that all is over."""
        views = self._fleet.views(self._clock())
        needed = {view.key for view in views}
        needed |= self.crew.lives.keys() | {lease.key for lease in self.leases.values()}
        self.crew.forget(needed | self._fleet.debtors)
        if self.closing and not needed:
            self.empty.set()
        if self.closing and not any(view.leases for view in views):
            self.quiet.set()

    def _follow_up(self) -> None:
        """Measure where somebody waits for that; set the clock."""
        if self._tasks is not None and not self.empty.is_set():
            self.weighing.look(self._tasks)
        self.alarm.look()

    def _report(self, key: Key, fact: Fact, error: HyperLlamaError | None) -> None:
        self.feed(self._fleet.report(key, fact, self._clock(), error=error))

    async def _weigh(self, key: Key) -> None:
        await self.weighing.measure(key)

    def _view(self, key: Key) -> View | None:
        return self._fleet.view(key, self._clock())


def _may_free(action: Action) -> bool:
    """Whether a plan may not be needed any more after it."""
    return isinstance(action, Refuse) or (isinstance(action, Changed) and action.state is State.GONE)
