"""The engines behind the instances: what each is planned as, its life, what it printed; does to them what is ordered.

Owns the plans, the lives, the log book and what a life begins with: control groups, prepared processes, engines that an
earlier life of the daemon left.  Must not know the fleet nor leases: it asks for an instance's view, and tells facts.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial

import anyio.abc

from hyperllamad.config.tables import Config
from hyperllamad.core.actions import View
from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.instance import Effect, Fact
from hyperllamad.core.models import Key, Model, Placement
from hyperllamad.core.names import ModelName
from hyperllamad.engines import host
from hyperllamad.engines.base import Home
from hyperllamad.engines.homes import Homes
from hyperllamad.supervision import adoption, cgroups, orphans
from hyperllamad.supervision.adoption import Foundling, Resolve
from hyperllamad.supervision.cgroups import Delegation
from hyperllamad.supervision.endings import End
from hyperllamad.supervision.housing import Housing
from hyperllamad.supervision.leftovers import Leftovers
from hyperllamad.supervision.life import Life
from hyperllamad.supervision.logs import LogBook, Ring
from hyperllamad.supervision.place import Stand
from hyperllamad.supervision.plan import Plan
from hyperllamad.supervision.probe import Pace
from hyperllamad.supervision.spares import Spares
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.supervision")


class Crew:
    """inherit() and start() first; do() and spawn() from then on."""

    def __init__(
        self,
        config: Config,
        homes: Homes,
        pace: Pace,
        *,
        view: Callable[[Key], View | None],
        report: Callable[[Key, Fact, HyperLlamaError | None], None],
        progressed: Callable[[Key], None],
        weigh: Callable[[Key], Awaitable[None]] | None,
    ) -> None:
        """`view` shows an instance as it is now; `report` and `progressed` are told what becomes of its engine.

        `weigh` sees what an engine took before it is used; None = nobody counts.
        """
        self._view = view
        self._report = report
        self._progressed = progressed
        self._weigh = weigh
        self._pace = pace
        self._spares = Spares(config, homes, host.read(config.engines))
        self._delegation: Delegation | None = None  # of control groups
        self._tasks: anyio.abc.TaskGroup | None = None
        self._found: dict[Key, Foundling] = {}  # to be taken over when their instances start
        self.plans: dict[Key, Plan] = {}  # of every instance, and of every lease not yet answered
        self.lives: dict[Key, Life] = {}  # those of whom a process may be left
        self._logs = LogBook()
        self._leftovers = Leftovers()
        self._take_over(config)

    def configure(self, config: Config) -> None:
        """Start by another configuration from now on; what runs is not touched."""
        self._take_over(config)
        self._spares.configure(config, self._host)

    def _take_over(self, config: Config) -> None:
        self._config = config
        self._host = host.read(config.engines)
        self._adopts = config.fleet.adopt_within_seconds > 0

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Live in these tasks."""
        self._tasks = tasks
        tasks.start_soon(self._spares.run, self._delegation)
        tasks.start_soon(self._leftovers.run)

    # -- plans -----------------------------------------------------------------------------------------------------

    def expect(self, plan: Plan, name: ModelName) -> None:
        """Somebody asks for an instance that is run so, by this name."""
        if plan.key not in self.lives:
            self.plans[plan.key] = plan
        if ring := self._logs.get(plan.key):
            ring.names.add(name.key)

    def forget(self, needed: Collection[Key]) -> None:
        """Plans of other instances than these are not needed any more."""
        self.plans = {key: plan for key, plan in self.plans.items() if key in needed}

    def name_of(self, instance: str) -> str:
        """The model that an instance was loaded as; the instance itself where it is not known any more."""
        return next((str(plan.model.name) for key, plan in self.plans.items() if str(key) == instance), instance)

    # -- what is ordered -------------------------------------------------------------------------------------------

    def spawn(self, key: Key, names: Iterable[str]) -> None:
        """Begin a life; `names` are those by which the instance is asked for (ModelName.key)."""
        assert self._tasks is not None  # noqa: S101 - see the class
        plan = self.plans[key]
        ring = self._logs.open(key)
        ring.names |= {plan.model.name.key, *names}
        paths, room = self._config.paths, self.placement(key)
        life = self.lives[key] = Life(
            plan,
            ring,
            Housing(plan, paths, self._host, self._delegation, self._spares, room=room),
            self._config.fleet,
            self._pace,
            weigh=partial(self._weigh, key) if self._weigh is not None else None,
            found=self._found.pop(key, None),
            describe=(lambda: self._stand(key)) if self._adopts else None,
            report=lambda fact, error: self._report(key, fact, error),
            progressed=lambda: self._progressed(key),
            ended=lambda end: self._ended(key, end),
        )
        self._tasks.start_soon(self._live, life)

    async def _live(self, life: Life) -> None:
        await life.run()
        self._leftovers.more()

    def do(self, key: Key, effect: Effect, level: int, cause: str) -> None:
        """Anything but SPAWN; `cause` is what clients are told whose streams are cut."""
        life = self.lives.get(key)
        if life is None:
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
            life.cut(cause)

    def fail(self, key: Key, why: str) -> None:
        """Something happened to the machine under it: its streams will end for that reason, not by somebody's order."""
        if (life := self.lives.get(key)) is not None:
            life.fail(why)

    def _ended(self, key: Key, end: End) -> None:
        del self.lives[key]  # first: the report may start the next one
        self._report(key, end.fact, end.error)

    # -- what becomes of them --------------------------------------------------------------------------------------

    def ready(self, key: Key) -> None:
        """The instance serves: what it serves is written down for the next life of the daemon."""
        if (life := self.lives.get(key)) is not None:
            life.note()

    def over(self, key: Key) -> None:
        """The instance is over: whoever follows its log is told."""
        self._logs.end(key)

    def placement(self, key: Key) -> Placement | None:
        """Where an instance lies; None where nobody counts memory."""
        view = self._view(key)
        found = view.placement if view is not None else None
        return found if found is not None and found.shares else None

    def guards(self) -> dict[Key, int]:
        """The process above each engine; 0 = has not started."""
        return {key: life.guard for key, life in self.lives.items()}

    def logs(self, name: ModelName) -> Ring | None:
        """What the engine of that model printed, the last one if it has ended; None when it was never loaded."""
        return self._logs.find(name)

    # -- prepared processes ----------------------------------------------------------------------------------------

    def prepared(self) -> dict[str, int]:
        """By home id, the guards above processes that wait for a model to serve."""
        return self._spares.guards

    async def drop(self, home: Home) -> None:
        """Keep nothing prepared in a home that is about to be removed."""
        await self._spares.drop(home)

    # -- from life to life of the daemon ---------------------------------------------------------------------------

    async def inherit(self, plan: Callable[[Model], Plan], resolve: Resolve | None) -> list[Foundling]:
        """End what an earlier life of the daemon left; returns those engines to go on with instead.

        `resolve` finds their models; without it all are ended.
        """
        orphans.become_subreaper()
        runtime = self._config.paths.runtime
        self._delegation = cgroups.delegation(runtime)
        if self._delegation is not None:
            log.info("each engine gets a control group", extra=fields(below=self._delegation.root))
        found: list[Foundling] = []
        if self._adopts and resolve is not None:
            found += adoption.find(self._config.paths, self._host, self._delegation, plan, resolve)
        spared = {one.directory for one in found}
        if killed := await orphans.sweep(runtime, self._delegation, spared=spared):
            log.warning("ended %d processes that an earlier daemon left behind", killed)
        return found

    def adopt(self, found: Foundling) -> None:
        """Go on with it when its instance starts."""
        key = found.plan.key
        self.plans[key], self._found[key] = found.plan, found
        self._logs.open(key).names |= set(found.stand.names)

    @property
    def adopts(self) -> bool:
        """Engines go on when the daemon restarts, where it is configured so."""
        return self._adopts

    def leave(self, key: Key, cause: str) -> bool:
        """Let an engine go on for the next life, its streams end with `cause`; False where it cannot."""
        life = self.lives.get(key)
        if life is None or not life.can_be_left:
            return False
        life.leave(cause)
        return True

    async def wait_left(self, key: Key) -> None:
        """Until one that was left goes on alone, or has ended in that very moment."""
        if (life := self.lives.get(key)) is not None:
            await life.over.wait()
            self.lives.pop(key, None)

    def _stand(self, key: Key) -> Stand:
        ring = self._logs.get(key)
        return adoption.stand(key, self.plans[key], self._view(key), ring.names if ring is not None else set())
