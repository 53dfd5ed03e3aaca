"""The door to the fleet: requests, orders of the administrator and the course of the daemon become the fleet's events.

Owns the fleet and the plans for models; what the fleet decides is done by performer.py.  Decides nothing itself.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable

import anyio
import anyio.abc

from hyperllamad.config.tables import Config
from hyperllamad.core.errors import NoEngineError
from hyperllamad.core.fleet import Fleet
from hyperllamad.core.gpu_health import Verdict
from hyperllamad.core.instance import State
from hyperllamad.core.models import Key, Model, Settings, Terms
from hyperllamad.core.names import ModelName
from hyperllamad.core.question import Answer, Question
from hyperllamad.engines.base import Home
from hyperllamad.engines.homes import Homes
from hyperllamad.supervision import memory
from hyperllamad.supervision.accounts import Accounts
from hyperllamad.supervision.adoption import Foundling, Resolve
from hyperllamad.supervision.broadcast import Watch
from hyperllamad.supervision.child import LAST_WAIT
from hyperllamad.supervision.events import Events
from hyperllamad.supervision.interruptions import Interruptions
from hyperllamad.supervision.learned import Learned
from hyperllamad.supervision.lease import Lease
from hyperllamad.supervision.logs import Ring
from hyperllamad.supervision.meter import Meter
from hyperllamad.supervision.numbers import FleetNumbers, numbers
from hyperllamad.supervision.performer import Performer
from hyperllamad.supervision.plan import Planner
from hyperllamad.supervision.probe import NORMAL, Pace
from hyperllamad.supervision.rows import Change, Row

log = logging.getLogger("hyperllamad.supervision")


class Supervisor:
    """run() in a task group first; everything else may be called while it runs."""

    def __init__(
        self,
        config: Config,
        homes: Homes,
        clock: Callable[[], float] = time.monotonic,
        *,
        pace: Pace = NORMAL,
        meter: Meter | None = None,
        resolve: Resolve | None = None,
        verdict: Callable[[], Verdict] | None = None,
    ) -> None:
        """`clock` gives seconds that never go back; `pace` is how often engines are probed.

        Without a `meter` nobody counts memory: models are limited by number alone.
        `resolve` finds the models of engines that an earlier life left running; without it all of those are ended.
        `verdict` says what there is of GPUs; see Planner.
        """
        self._config = config
        self._clock = clock
        self._resolve = resolve
        self._counts = meter is not None
        self._planner = Planner(config, homes, verdict)
        self._at_start = memory.read()[1]
        self._fleet = Fleet(**self._numbers_of(config))
        self._accounts = Accounts(meter, Learned(config.paths.state / "learned.json"))
        self._performer = Performer(config, homes, self._fleet, self._accounts, clock, pace=pace)
        self._crew = self._performer.crew
        self.interruptions = Interruptions(self._fleet, self._performer, clock)
        self._numbers = itertools.count(1)
        self._closing = anyio.Event()
        self._leaving = False  # engines go on for the next life, as far as they can

    def _numbers_of(self, config: Config) -> FleetNumbers:
        return numbers(config, measured=self._counts, at_start=self._at_start)

    # -- for requests ----------------------------------------------------------------------------------------------

    def settings(self, model: Model) -> Settings:
        """How the model would be run now.  Raises NoEngineError."""
        return self._planner.plan(model).settings

    def lease(self, model: Model, *, keep_alive: float | None = None, client: str = "", weight: float = 1.0) -> Lease:
        """Ask for a ready engine; `keep_alive` in seconds replaces the configured one.  Raises NoEngineError.

        Requests of one `client` take turns with those of others; with a `weight` of 2 it gets twice as many turns.
        Make sure that the lease is released however the request ends, and only then wait for it.
        """
        plan = self._planner.plan(model)
        number = next(self._numbers)
        lease = Lease(number, model, plan.key, self._release, on_begun=self._begun, wanted=self._wanted)
        self._performer.leases[lease.number] = lease
        self._crew.expect(plan, model.name)
        terms = self._accounts.terms(plan)
        now = self._clock()
        self._performer.feed(
            self._fleet.want(
                lease.number, plan.key, now, keep_alive=keep_alive, client=client, weight=weight, terms=terms
            )
        )
        return lease

    def _release(self, number: int) -> None:
        self._performer.leases.pop(number, None)
        self._performer.feed(self._fleet.release(number, self._clock()))

    def _begun(self, number: int) -> None:
        if actions := self._fleet.begun(number, self._clock()):
            self._performer.feed(actions)

    def _wanted(self, key: Key) -> bool:
        """Requests wait for a slot of the instance, or it is to leave once its own have ended."""
        view = self._fleet.view(key, self._clock())
        return view is not None and (view.waiting > 0 or view.state in {State.DRAINING, State.SETTLING})

    # -- for the administrator -------------------------------------------------------------------------------------

    def keep(self, model: Model, keep_alive: float) -> bool:
        """Set how long the model stays, without a request (0 = until it is idle); False when it is not loaded."""
        keys = self._keys(model)
        for key in keys:
            self._performer.feed(self._fleet.keep(key, keep_alive, self._clock()))
        return bool(keys)

    def grow(self, model: Model, context: int) -> None:
        """Run the model with at least so many tokens of context from now on, 0 = as configured.  Raises NoEngineError.

        What runs otherwise is sent away after its requests.
        """
        before = self._keys(model)
        self._planner.grow(model, context)
        for key in before - {self._planner.plan(model).key}:
            self._performer.feed(self._fleet.unload(key, self._clock()))

    def unload(self, model: Model, *, cut: bool = False) -> bool:
        """Send the model away, after its requests or (`cut`) at once; False when it is not loaded."""
        keys = self._keys(model)
        for key in keys:
            self._performer.feed(self._fleet.unload(key, self._clock(), cut=cut))
        return bool(keys)

    def retry(self, model: Model) -> None:
        """Forget that the model failed, so that the next request starts it afresh; in back-off it starts now."""
        for key in self._keys(model):
            self._performer.feed(self._fleet.retry(key, self._clock()))

    def configure(self, config: Config, find: Callable[[ModelName], Model | None]) -> dict[str, ModelName]:
        """Run by another configuration from now on; `find` knows the models by it.

        What would now be run otherwise is sent away after its requests: by instance, the name it was loaded under.
        What would be run as before is not touched.
        """
        self._config = config
        self._planner.configure(config)
        self._crew.configure(config)
        self._performer.feed(self._fleet.retune(self._clock(), **self._numbers_of(config)))
        leaving = {}
        for view in self._fleet.views(self._clock()):
            name = self._crew.plans[view.key].model.name
            model = find(name)
            if model is None or self._key(model) != view.key:
                leaving[str(view.key)] = name
                self._performer.feed(self._fleet.unload(view.key, self._clock()))
        return leaving

    def _key(self, model: Model) -> Key | None:
        """Of the instance the model would get now; None when no engine can run it."""
        try:
            return self._planner.plan(model).key
        except NoEngineError:
            return None

    def close(self, *, now: bool = False, leave: bool = False) -> None:
        """Serve nobody new; let open requests finish within `server.shutdown_grace`, or (`now`) not at all.

        `leave`: then let the engines go on for the next life of the daemon, as far as they can.
        """
        self._leaving = leave and self._crew.adopts
        self._performer.closing = True
        self._closing.set()
        self._performer.feed(self._fleet.close(self._clock(), drain=not self._leaving))
        if now:
            self._performer.quiet.set()
            if not self._leaving:
                self._cut_everybody()

    @property
    def closing(self) -> bool:
        """Nobody new is served any more."""
        return self._performer.closing

    async def wait_empty(self) -> None:
        """Until it was closed and no process of any engine is left, or run() has given up waiting for that."""
        await self._performer.empty.wait()

    # -- what people see -------------------------------------------------------------------------------------------

    def census(self) -> Counter[State]:
        """How many instances are in which state."""
        return self._performer.overview.census()

    async def pulse(self) -> None:
        """Until the clock has gone round once more, which it does at once: returns only while decisions are made."""
        await self._performer.alarm.pulse()

    def rows(self) -> tuple[Row, ...]:
        """Every instance, in the order in which the models were first wanted."""
        return self._performer.overview.rows()

    def prepared(self) -> dict[str, int]:
        """By home id, the bytes that processes hold which wait for a model to serve."""
        return self._performer.overview.prepared()

    async def missing(self) -> tuple[str, ...]:
        """Sentences about GPU memory that has not come back from instances that ended, as it is at this moment."""
        if self._fleet.missing:
            await self.measure()
        return self._performer.overview.missing()

    async def leave(self, home: Home) -> None:
        """Keep nothing prepared in a home that is about to be removed."""
        await self._crew.drop(home)

    def plan_load(self, model: Model) -> tuple[Question, Answer, Terms]:
        """What would be decided if the model were asked for now; changes nothing.  Raises NoEngineError."""
        plan = self._planner.plan(model)
        terms = self._accounts.terms(plan)
        return *self._fleet.plan(plan.key, terms, self._clock()), terms

    async def machine_changed(self) -> None:
        """There are other GPUs than before: count anew how many models they hold, and how much memory."""
        self._performer.feed(self._fleet.retune(self._clock(), **self._numbers_of(self._config)))
        await self.measure()

    async def measure(self) -> None:
        """Have memory measured now, for who wants to see what is true at this moment."""
        if self._accounts.counted:
            await self._performer.weighing.measure()

    @property
    def events(self) -> Events:
        """Every decision, the last thousand."""
        return self._performer.events

    def name_of(self, instance: str) -> str:
        """The model that an instance was loaded as; the instance itself where it is not known any more."""
        return self._crew.name_of(instance)

    def logs(self, name: ModelName) -> Ring | None:
        """What the engine of that model printed, the last one if it has ended; None when it was never loaded."""
        return self._crew.logs(name)

    def watch(self) -> Watch[Change]:
        """Every change from now on; use it as a context manager.  Ends at shutdown, or when its reader is too slow."""
        return self._performer.overview.watch()

    # -- tasks -----------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Until close() was called and no process is left.  First ends what an earlier life of the daemon left."""
        found = await self._crew.inherit(self._planner.plan, self._resolve)
        try:
            async with anyio.create_task_group() as tasks:
                self._performer.start(tasks)
                for one in found:
                    self._adopt(one)
                if self._accounts.counted:
                    await self._performer.weighing.measure()  # before the first request has to be placed
                task_status.started()
                await self._wait_over()
                tasks.cancel_scope.cancel()
        finally:
            self._performer.stop()

    async def _wait_over(self) -> None:
        """Until close() and the end of everybody; requests get the grace, engines the time to stop and be killed."""
        await self._closing.wait()
        with anyio.move_on_after(self._config.server.grace):
            await (self._performer.quiet if self._leaving else self._performer.empty).wait()
        if self._leaving:
            await self._leave()
        self._cut_everybody()
        with anyio.move_on_after(self._config.fleet.stop_timeout_seconds + LAST_WAIT) as patience:
            await self._performer.empty.wait()
        if patience.cancelled_caught:
            log.error("engines do not end, not even killed: %r", self._fleet)

    def _adopt(self, found: Foundling) -> None:
        """Go on with an engine of an earlier life of the daemon."""
        self._crew.adopt(found)
        self._accounts.adopted(found.plan.key)
        plan, now = found.plan, self._clock()
        terms, placement = self._accounts.terms(plan), found.stand.placement
        self._performer.feed(
            self._fleet.adopt(plan.key, now, keep_alive=found.keep_alive, terms=terms, placement=placement)
        )

    async def _leave(self) -> None:
        """Let go of all engines that the next life can go on with; what is left is ended."""
        left = []
        for key in self._crew.guards():
            view = self._fleet.view(key, self._clock())
            servable = view is not None and view.state in {State.READY, State.STARTING}
            if servable and self._crew.leave(key, "the server is restarting"):
                self._performer.feed(self._fleet.leave(key, self._clock()))
                left.append(key)
        for key in left:
            await self._crew.wait_left(key)
        self._performer.feed(())

    def _cut_everybody(self) -> None:
        for view in self._fleet.views(self._clock()):
            self._performer.feed(self._fleet.unload(view.key, self._clock(), cut=True))

    def _keys(self, model: Model) -> set[Key]:
        """The instances meant by a model: the one it would get now, and those loaded under its name before."""
        keys = {key for key, plan in self._crew.plans.items() if plan.model.name == model.name}
        with contextlib.suppress(NoEngineError):  # its engine was removed; an instance may still run
            keys.add(self._planner.plan(model).key)
        return keys & {view.key for view in self._fleet.views(self._clock())}
