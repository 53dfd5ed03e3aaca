"""Does what the fleet decides: starts and ends children, answers leases; tells it what happens and what time it is.

Owns the fleet, the tasks of the instances and one timer; decides nothing itself.  Every event goes through _feed(), a
plain function: between reading and changing state nothing waits, so nothing needs a lock.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypedDict

import anyio
import anyio.abc

from hyperllamad.config.tables import Config
from hyperllamad.core.errors import HyperLlamaError, NoEngineError
from hyperllamad.core.fleet import Action, Changed, Do, Fleet, Grant, Refuse, Rules
from hyperllamad.core.instance import Effect, Fact, State
from hyperllamad.core.models import HOST, Key, Model, Placement, Settings, Terms
from hyperllamad.core.names import ModelName
from hyperllamad.core.placement import Answer, Question
from hyperllamad.engines import host
from hyperllamad.engines.base import Home
from hyperllamad.engines.homes import Homes
from hyperllamad.supervision import adoption, cgroups, memory, orphans, rows
from hyperllamad.supervision.accounts import Accounts
from hyperllamad.supervision.adoption import Foundling, Resolve
from hyperllamad.supervision.broadcast import Broadcast, Watch
from hyperllamad.supervision.cgroups import Delegation
from hyperllamad.supervision.child import LAST_WAIT
from hyperllamad.supervision.events import Events
from hyperllamad.supervision.learned import Learned
from hyperllamad.supervision.lease import Lease
from hyperllamad.supervision.life import End, Life
from hyperllamad.supervision.logs import LogBook, Ring
from hyperllamad.supervision.meter import Meter
from hyperllamad.supervision.place import Stand
from hyperllamad.supervision.plan import Plan, Planner, models_at_once
from hyperllamad.supervision.probe import NORMAL, Pace
from hyperllamad.supervision.rows import Change, Row
from hyperllamad.supervision.spares import Spares
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.supervision")

MEASURE_PAUSE = 0.2  # seconds between two measurements, while somebody waits for memory


class FleetNumbers(TypedDict):
    """What the fleet takes from the configuration; see Fleet.__init__."""

    max_models: int
    keep_alive: float
    max_queue: int
    load_timeout: float
    stop_timeout: float
    drain_timeout: float
    restart_budget: int
    rules: Rules


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
    ) -> None:
        """`clock` gives seconds that never go back; `pace` is how often engines are probed.

        Without a `meter` nobody counts memory: models are limited by number alone.
        `resolve` finds the models of engines that an earlier life left running; without it all of those are ended.
        """
        self._config = config
        self._clock = clock
        self._pace = pace
        self._resolve = resolve
        self._adopts = config.fleet.adopt_within_seconds > 0
        self._found: dict[Key, Foundling] = {}  # to be taken over when their instances start
        self._leaving = False  # engines go on for the next life, as far as they can
        self._quiet = anyio.Event()  # closing, and no request is open any more
        self._planner = Planner(config, homes)
        self._host = host.read(config.engines)
        self._spares = Spares(config, homes, self._host)
        self._measured = meter is not None
        self._fleet = Fleet(**self._numbers_of(config))
        self._accounts = Accounts(meter, Learned(config.paths.state / "learned.json"))
        self._events = Events()
        self._measuring = False
        self._measured_at = -math.inf
        self._numbers = itertools.count(1)
        self._leases: dict[int, Lease] = {}  # those not yet answered
        self._plans: dict[Key, Plan] = {}  # of every instance, and of every lease not yet answered
        self._lives: dict[Key, Life] = {}  # those of whom a process may be left
        self._logs = LogBook()
        self._changes: Broadcast[Change] = Broadcast()
        self._memory = rows.MemoryMeter()
        self._calendar = rows.Calendar()
        self._delegation: Delegation | None = None  # of control groups
        self._tasks: anyio.abc.TaskGroup | None = None
        self._wake = anyio.Event()
        self._went_round = anyio.Event()  # the clock, once more
        self._sleeps_until = math.inf
        self._closing = anyio.Event()
        self._empty = anyio.Event()

    def _numbers_of(self, config: Config) -> FleetNumbers:
        self._stop_timeout = config.fleet.stop_timeout_seconds
        return FleetNumbers(
            max_models=models_at_once(config),
            keep_alive=config.fleet.keep_alive_seconds,
            max_queue=config.fleet.max_queue,
            load_timeout=config.fleet.load_timeout_seconds,
            stop_timeout=self._stop_timeout,
            drain_timeout=math.inf,  # an answer is not cut off because others wait; at shutdown run() does
            restart_budget=config.fleet.restart_budget,
            rules=_rules(config, measured=self._measured),
        )

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
        lease = Lease(next(self._numbers), model, plan.key, self._release)
        self._leases[lease.number] = lease
        if plan.key not in self._lives:
            self._plans[plan.key] = plan
        if ring := self._logs.get(plan.key):
            ring.names.add(model.name.key)
        terms = self._accounts.terms(plan)
        now = self._clock()
        self._feed(
            self._fleet.want(
                lease.number, plan.key, now, keep_alive=keep_alive, client=client, weight=weight, terms=terms
            )
        )
        return lease

    def _release(self, number: int) -> None:
        self._leases.pop(number, None)
        self._feed(self._fleet.release(number, self._clock()))

    # -- for the administrator -------------------------------------------------------------------------------------

    def keep(self, model: Model, keep_alive: float) -> bool:
        """Set how long the model stays, without a request (0 = until it is idle); False when it is not loaded."""
        keys = self._keys(model)
        for key in keys:
            self._feed(self._fleet.keep(key, keep_alive, self._clock()))
        return bool(keys)

    def grow(self, model: Model, context: int) -> None:
        """Run the model with at least so many tokens of context from now on, 0 = as configured.  Raises NoEngineError.

        What runs otherwise is sent away after its requests.
        """
        before = self._keys(model)
        self._planner.grow(model, context)
        for key in before - {self._planner.plan(model).key}:
            self._feed(self._fleet.unload(key, self._clock()))

    def unload(self, model: Model, *, cut: bool = False) -> bool:
        """Send the model away, after its requests or (`cut`) at once; False when it is not loaded."""
        keys = self._keys(model)
        for key in keys:
            self._feed(self._fleet.unload(key, self._clock(), cut=cut))
        return bool(keys)

    def retry(self, model: Model) -> None:
        """Forget that the model failed, so that the next request starts it afresh; in back-off it starts now."""
        for key in self._keys(model):
            self._feed(self._fleet.retry(key, self._clock()))

    def configure(self, config: Config, find: Callable[[ModelName], Model | None]) -> dict[str, ModelName]:
        """Run by another configuration from now on; `find` knows the models by it.

        What would now be run otherwise is sent away after its requests: by instance, the name it was loaded under.
        What would be run as before is not touched.
        """
        self._config = config
        self._adopts = config.fleet.adopt_within_seconds > 0
        self._planner.configure(config)
        self._host = host.read(config.engines)
        self._spares.configure(config, self._host)
        self._feed(self._fleet.retune(self._clock(), **self._numbers_of(config)))
        leaving = {}
        for view in self._fleet.views(self._clock()):
            name = self._plans[view.key].model.name
            model = find(name)
            if model is None or self._key(model) != view.key:
                leaving[str(view.key)] = name
                self._feed(self._fleet.unload(view.key, self._clock()))
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
        self._leaving = leave and self._adopts
        self._closing.set()
        self._feed(self._fleet.close(self._clock(), drain=not self._leaving))
        if now:
            self._quiet.set()
            if not self._leaving:
                self._cut_everybody()

    @property
    def closing(self) -> bool:
        """Nobody new is served any more."""
        return self._closing.is_set()

    async def wait_empty(self) -> None:
        """Until it was closed and no process of any engine is left, or run() has given up waiting for that."""
        await self._empty.wait()

    # -- what people see -------------------------------------------------------------------------------------------

    def census(self) -> Counter[State]:
        """How many instances are in which state."""
        return Counter(view.state for view in self._fleet.views(self._clock()))

    async def pulse(self) -> None:
        """Until the clock has gone round once more, which it does at once: returns only while decisions are made."""
        self._wake.set()
        await self._went_round.wait()

    def rows(self) -> tuple[Row, ...]:
        """Every instance, in the order in which the models were first wanted."""
        now = self._clock()
        unix = self._calendar.offset(now)
        sizes = self._memory.sizes([life.guard for life in self._lives.values() if life.guard])
        found = []
        for view in self._fleet.views(now):
            life = self._lives.get(view.key)
            size = sizes.get(life.guard, 0) if life is not None else 0
            sizes_there = self._accounts.sizes.get(view.key, {})
            on_gpus = sum(count for device, count in sizes_there.items() if device != HOST)
            found.append(rows.row(view, self._plans[view.key], life, size=size, size_gpu=on_gpus, now=now, unix=unix))
        return tuple(found)

    def prepared(self) -> dict[str, int]:
        """By home id, the bytes that processes hold which wait for a model to serve."""
        guards = self._spares.guards
        sizes = rows.MemoryMeter().sizes(list(guards.values()))
        return {home: sizes.get(guard, 0) for home, guard in guards.items()}

    async def leave(self, home: Home) -> None:
        """Keep nothing prepared in a home that is about to be removed."""
        await self._spares.drop(home)

    def plan_load(self, model: Model) -> tuple[Question, Answer, Terms]:
        """What would be decided if the model were asked for now; changes nothing.  Raises NoEngineError."""
        plan = self._planner.plan(model)
        terms = self._accounts.terms(plan)
        return *self._fleet.plan(plan.key, terms, self._clock()), terms

    async def measure(self) -> None:
        """Have memory measured now, for who wants to see what is true at this moment."""
        if self._accounts.counted:
            await self._measure()

    @property
    def events(self) -> Events:
        """Every decision, the last thousand."""
        return self._events

    def name_of(self, instance: str) -> str:
        """The model that an instance was loaded as; the instance itself where it is not known any more."""
        return next((str(plan.model.name) for key, plan in self._plans.items() if str(key) == instance), instance)

    def logs(self, name: ModelName) -> Ring | None:
        """What the engine of that model printed, the last one if it has ended; None when it was never loaded."""
        return self._logs.find(name)

    def watch(self) -> Watch[Change]:
        """Every change from now on; use it as a context manager.  Ends at shutdown, or when its reader is too slow."""
        return self._changes.watch()

    # -- tasks -----------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Until close() was called and no process is left.  First ends what an earlier life of the daemon left."""
        orphans.become_subreaper()
        runtime = self._config.paths.runtime
        self._delegation = cgroups.delegation(runtime)
        if self._delegation is not None:
            log.info("each engine gets a control group", extra=fields(below=self._delegation.root))
        found = list(self._find())
        spared = {one.directory for one in found}
        if killed := await orphans.sweep(runtime, self._delegation, spared=spared):
            log.warning("ended %d processes that an earlier daemon left behind", killed)
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._keep_time)
                self._tasks.start_soon(self._spares.run, self._delegation)
                for one in found:
                    self._adopt(one)
                if self._accounts.counted:
                    await self._measure()  # before the first request has to be placed
                task_status.started()
                await self._wait_over()
                self._tasks.cancel_scope.cancel()
        finally:
            self._changes.close()
            self._events.close()
            self._empty.set()

    async def _wait_over(self) -> None:
        """Until close() and the end of everybody; requests get the grace, engines the time to stop and be killed."""
        await self._closing.wait()
        with anyio.move_on_after(self._config.server.grace):
            await (self._quiet if self._leaving else self._empty).wait()
        if self._leaving:
            await self._leave()
        self._cut_everybody()
        with anyio.move_on_after(self._stop_timeout + LAST_WAIT) as patience:
            await self._empty.wait()
        if patience.cancelled_caught:
            log.error("engines do not end, not even killed: %r", self._fleet)

    # -- from life to life -----------------------------------------------------------------------------------------

    def _find(self) -> Iterator[Foundling]:
        """Engines of an earlier life to go on with."""
        if not self._adopts or self._resolve is None:
            return iter(())
        paths, plan = self._config.paths, self._planner.plan
        return adoption.find(paths, self._host, self._delegation, plan, self._resolve)

    def _adopt(self, found: Foundling) -> None:
        plan, stand, key = found.plan, found.stand, found.plan.key
        self._plans[key], self._found[key] = plan, found
        self._logs.open(key).names |= set(stand.names)
        now, terms = self._clock(), self._accounts.terms(plan)
        adopted = self._fleet.adopt(key, now, keep_alive=found.keep_alive, terms=terms, placement=stand.placement)
        self._feed(adopted)

    async def _leave(self) -> None:
        """Let go of all engines that the next life can go on with; what is left is ended."""
        left = []
        for key, life in list(self._lives.items()):
            state = next((view.state for view in self._fleet.views(self._clock()) if view.key == key), None)
            if state in {State.READY, State.STARTING} and life.can_be_left:
                life.leave("the server is restarting")
                self._feed(self._fleet.leave(key, self._clock()))
                left.append((key, life))
        for key, life in left:
            await life.left.wait()
            del self._lives[key]
        self._feed(())

    def _stand(self, key: Key) -> Stand:
        view = next((view for view in self._fleet.views(self._clock()) if view.key == key), None)
        ring = self._logs.get(key)
        return adoption.stand(key, self._plans[key], view, ring.names if ring is not None else set())

    async def _keep_time(self) -> None:
        """The one timer: sleeps until the fleet's next deadline, or until that has come nearer."""
        while True:
            deadline = self._fleet.next_deadline()
            self._sleeps_until = math.inf if deadline is None else deadline
            with anyio.move_on_after(None if deadline is None else deadline - self._clock()):
                await self._wake.wait()
            self._wake = anyio.Event()
            self._feed(self._fleet.tick(self._clock()))
            self._went_round.set()
            self._went_round = anyio.Event()

    async def _measure(self, loaded: Key | None = None) -> None:
        """Tell the fleet what memory there is, and see what somebody who has just `loaded` took."""
        began = self._measured_at = self._clock()
        guards = {key: life.guard for key, life in self._lives.items()}
        measured = await self._accounts.read(guards, began, loaded)
        self._feed(self._fleet.measure(measured, self._clock()))

    async def _measure_soon(self) -> None:
        """The same for those who wait for memory, not more often than it can change anything."""
        try:
            await anyio.sleep(max(0.0, self._measured_at + MEASURE_PAUSE - self._clock()))
            await self._measure()
        finally:
            self._measuring = False
        self._follow_up()

    # -- events in, actions out ------------------------------------------------------------------------------------

    def _ended(self, key: Key, end: End) -> None:
        del self._lives[key]  # first: the report may start the next one
        self._report(key, end.fact, end.error)

    def _report(self, key: Key, fact: Fact, error: HyperLlamaError | None) -> None:
        self._feed(self._fleet.report(key, fact, self._clock(), error=error))

    def _feed(self, actions: Sequence[Action]) -> None:
        """Perform what the fleet decided, in its order."""
        refused: Counter[tuple[str, str]] = Counter()
        for action in actions:
            match action:
                case Changed(key, state):
                    self._changed(key, state)
                case Do(key, effect, level):
                    self._do(key, effect, level)
                case Grant(number, key):
                    upstream = self._lives[key].upstream
                    assert upstream is not None  # noqa: S101 - it is made before READY is reported
                    self._leases.pop(number).answer(upstream)
                case Refuse(number, error):
                    lease = self._leases.pop(number)
                    lease.answer(error)
                    refused[str(lease.model.name), str(error)] += 1
        for (name, why), count in refused.items():
            log.info("refused: %s", why, extra=fields(model=name, requests=count))
        if records := self._fleet.records():
            self._events.add(records, self.name_of, time.time() - self._clock())
        if self.closing or any(_may_free(action) for action in actions):
            self._tidy()
        self._follow_up()

    def _follow_up(self) -> None:
        """Measure where somebody waits for that; set the clock."""
        wanted = self._fleet.needs_measure or self._accounts.curious
        if wanted and not self._measuring and self._tasks is not None and not self._empty.is_set():
            self._measuring = True
            self._tasks.start_soon(self._measure_soon)
        deadline = self._fleet.next_deadline()
        if deadline is not None and deadline < self._sleeps_until:
            self._wake.set()

    def _do(self, key: Key, effect: Effect, level: int) -> None:
        life = self._lives.get(key)
        if effect is Effect.SPAWN:
            self._spawn(key)
        elif life is None:
            return  # it has ended by itself, and its streams with it
        elif effect is Effect.TERM:
            life.terminate()
        elif effect is Effect.KILL:
            life.kill()
        elif effect is Effect.SLEEP:
            life.note(adoptable=False)  # the next life could not tell that it sleeps
            life.sleep(level)
        elif effect is Effect.WAKE:
            life.wake()
        else:
            life.cut("the server is shutting down" if self.closing else "the model was unloaded")

    def _spawn(self, key: Key) -> None:
        assert self._tasks is not None  # noqa: S101 - see the class
        plan = self._plans[key]
        ring = self._logs.open(key)
        ring.names |= {plan.model.name.key, *(x.model.name.key for x in self._leases.values() if x.key == key)}
        life = self._lives[key] = Life(
            plan,
            ring,
            self._config,
            self._host,
            self._pace,
            delegation=self._delegation,
            spares=self._spares,
            room=self._placement(key),
            weigh=partial(self._measure, key) if self._accounts.counted else None,
            found=self._found.pop(key, None),
            describe=(lambda: self._stand(key)) if self._adopts else None,
            report=lambda fact, error: self._report(key, fact, error),
            progressed=lambda: self._tell(key, State.STARTING),
            ended=lambda end: self._ended(key, end),
        )
        self._tasks.start_soon(life.run)

    def _placement(self, key: Key) -> Placement | None:
        """Where an instance lies; None where nobody counts memory."""
        found = self._fleet.placement(key)
        return found if found is not None and found.shares else None

    def _changed(self, key: Key, state: State) -> None:
        self._accounts.changed(key, state, self._placement(key), self._clock())
        if state is State.READY and (life := self._lives.get(key)) is not None:
            life.note()
        if state in {State.FAILED, State.GONE}:
            self._logs.end(key)
        self._tell(key, state)

    def _tell(self, key: Key, state: State) -> None:
        life = self._lives.get(key)
        detail = next(
            (str(view.error) for view in self._fleet.views(self._clock()) if view.key == key and view.error), ""
        )
        self._changes.send(
            Change(
                at=time.time(),
                name=str(self._plans[key].model.name),
                instance=str(key),
                state=state,
                phase=life.phase if life is not None and state is State.STARTING else "",
                elapsed=life.elapsed if life is not None else 0.0,
                detail=detail,
            )
        )

    def _tidy(self) -> None:
        """Forget plans that nobody needs any more; notice that all is over."""
        needed = {view.key for view in self._fleet.views(self._clock())}
        needed |= self._lives.keys() | {lease.key for lease in self._leases.values()}
        self._plans = {key: plan for key, plan in self._plans.items() if key in needed}
        if self.closing and not needed:
            self._empty.set()
        if self.closing and not any(view.leases for view in self._fleet.views(self._clock())):
            self._quiet.set()

    def _cut_everybody(self) -> None:
        for view in self._fleet.views(self._clock()):
            self._feed(self._fleet.unload(view.key, self._clock(), cut=True))

    def _keys(self, model: Model) -> set[Key]:
        """The instances meant by a model: the one it would get now, and those loaded under its name before."""
        keys = {key for key, plan in self._plans.items() if plan.model.name == model.name}
        with contextlib.suppress(NoEngineError):  # its engine was removed; an instance may still run
            keys.add(self._planner.plan(model).key)
        return keys & {view.key for view in self._fleet.views(self._clock())}


def _rules(config: Config, *, measured: bool) -> Rules:
    table = config.fleet
    stated = table.sleep_memory_bytes
    return Rules(
        measured=measured,
        gpu_overhead=table.gpu_overhead_bytes,
        spread=table.spread,
        sleep_memory=memory.read()[1] // 2 if stated is None else stated,
    )


def _may_free(action: Action) -> bool:
    """Whether a plan may not be needed any more after it."""
    return isinstance(action, Refuse) or (isinstance(action, Changed) and action.state is State.GONE)
