"""One life of one instance: a child from before its spawn until nobody of it is left, watched by its probes.

Reports facts and progress to whoever started it; must not know the fleet, leases or other instances.  What its end
means is in endings.py.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

from hyperllamad.config.tables import FleetTable
from hyperllamad.core.errors import EngineDiedError, HyperLlamaError
from hyperllamad.core.instance import Fact
from hyperllamad.engines.base import Place
from hyperllamad.supervision import place, probe
from hyperllamad.supervision.adoption import Foundling
from hyperllamad.supervision.child import Child, Exit
from hyperllamad.supervision.endings import SEE_LOGS, End, MemoryKills, explain
from hyperllamad.supervision.housing import Housing
from hyperllamad.supervision.logs import Ring
from hyperllamad.supervision.phases import Phases
from hyperllamad.supervision.place import Stand
from hyperllamad.supervision.plan import Plan
from hyperllamad.supervision.probe import Pace
from hyperllamad.supervision.signs import Signs
from hyperllamad.supervision.slumber import Slumber
from hyperllamad.supervision.spares import Prepared, Spare
from hyperllamad.supervision.stuck import Stuck
from hyperllamad.supervision.upstream import Upstream
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.supervision")

EXPLAINED_LINES = 400  # how much of its last output an engine's adapter sees; a traceback of vLLM has about 150


class Life:
    """run() once; terminate(), kill() and cut() at any time."""

    def __init__(
        self,
        plan: Plan,
        ring: Ring,
        house: Housing,
        table: FleetTable,
        pace: Pace,
        *,
        weigh: Callable[[], Awaitable[None]] | None = None,
        found: Foundling | None = None,
        describe: Callable[[], Stand] | None = None,
        report: Callable[[Fact, HyperLlamaError | None], None],
        progressed: Callable[[], None],
        ended: Callable[[End], None],
    ) -> None:
        """`weigh` sees what memory it took before it is used; None = nobody counts.

        `ended` is called, once, the moment nobody is left; run() may go on for a while to clean up.
        `found` is an engine to take over instead of starting one; `describe` says what it serves, for the next life.
        """
        self.plan = plan
        self._weigh = weigh
        self.phases = Phases("starting")  # of loading
        self.pid = 0  # of the engine's main process, once it runs
        self.guard = 0  # of its guard
        self.upstream: Upstream | None = None  # once ready
        self._ring = ring
        self._house = house
        self._patience = table.adopt_within_seconds
        self._pace = pace
        self._found = found
        self._describe = describe
        self._where: Place | None = None  # once it has one
        if found is not None and found.leader.guard is not None:  # its memory is ours to count from the first moment
            self.guard = found.leader.guard.pid
        self.left = False  # it goes on without us
        self.over = anyio.Event()  # it does, or nobody of it is left
        self._report = report
        self._progressed = progressed
        self._on_end = ended
        self._began = time.monotonic()
        self._memory_kills = MemoryKills()
        self._signs = Signs(
            plan,
            pace,
            self._memory_kills,
            capture=self._heard if table.capture_stacks else None,
            asked=lambda: self._asked,
            sick=self._falls_sick,
        )
        self._asked = False  # to end
        self._leaves = False  # the engine goes on without us
        self.stuck = Stuck(on_gpu=plan.settings.device == "cuda")
        self._child: Child | Prepared | None = None
        self._sick = ""  # why it is being killed
        self._slumber: Slumber | None = None  # once ready
        self._tasks: anyio.abc.TaskGroup | None = None  # that end with the child
        self._tail: deque[str] = deque(maxlen=EXPLAINED_LINES)  # of this life; the ring has those before it too
        self._fields = fields(model=plan.model.name, engine=plan.engine.name, instance=plan.key)

    @property
    def phase(self) -> str:
        """The one that is on; "" once ready."""
        return self.phases.current

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def terminate(self) -> None:
        if self._leaves:
            return
        self._asked = True
        if self._child is not None:
            self._child.terminate()

    def kill(self) -> None:
        if self._leaves:
            return
        self._asked = True
        self.stuck.killed()
        if self._child is not None:
            self._child.kill()

    @property
    def can_be_left(self) -> bool:
        """The next life of the daemon could go on with it."""
        return self._child is not None and self._child.can_be_left and self._describe is not None and not self._asked

    def leave(self, cause: str) -> None:
        """Let the engine go on for the next life; open streams end.  Nothing is done to it any more.

        `over` tells when that is done.
        """
        assert self._child is not None  # noqa: S101 - see can_be_left
        self._leaves = True
        self.note()
        self.cut(cause)
        if self._where is not None:
            with contextlib.suppress(OSError):  # a full disk: the lines are lost, the engine is not
                place.keep_lines(self._where, self._ring)
        self._child.leave()

    def note(self, *, adoptable: bool = True) -> None:
        """Write down what it serves now, so that the next life can go on with it, or that it cannot."""
        if self._describe is not None and self._where is not None:
            with contextlib.suppress(OSError):  # a full disk: then it will be ended instead
                place.note(self._where, self._describe() if adoptable else None)

    def sleep(self, level: int) -> None:
        """Have the engine give up its memory; reports SLEPT, or SICK when it cannot."""
        if self.upstream is not None:
            self.upstream.asleep = True  # from here on: what it is asked while it falls asleep it may never answer
        self._switch(lambda slumber: slumber.sleep(level), Fact.SLEPT)

    def wake(self) -> None:
        """Have it take its memory again; reports READY once it answers as before, or SICK."""
        self._switch(lambda slumber: slumber.wake(), Fact.READY)

    def fail(self, why: str) -> None:
        """It is about to be ended for that reason, which is no fault of its own."""
        self._sick = self._sick or why

    def cut(self, cause: str) -> None:
        """End all open streams; `cause` is what their clients are told, unless there is a better reason."""
        if self.upstream is not None:
            self.upstream.cut_on_purpose = not self._sick
            self.upstream.cut(self._sick or cause)

    async def run(self) -> None:
        """Until nobody of it is left and its place is removed, or it was left to the next life."""
        if self._found is not None:
            for at, text in place.kept_lines(self._found.where):
                self._ring.append(text, at)
            await self._housed(self._found.where, None)
            return
        try:
            where, spare = await self._house.enter()
        except HyperLlamaError as error:
            self._end(End(Fact.BROKEN, error))
            return
        if missing := self._house.unenforced:
            self._log(logging.WARNING, f"runs without its limits: nothing here enforces {', '.join(missing)}")
        await self._housed(where, spare)

    # -- the pieces ------------------------------------------------------------------------------------------------

    async def _housed(self, where: Place, spare: Spare | None) -> None:
        self._where = where
        try:
            await self._live(where, spare)
        finally:
            if not self.left:
                await self._house.remove(where)

    async def _live(self, where: Place, spare: Spare | None) -> None:
        try:
            launch = self._house.launch(where)
        except HyperLlamaError as error:
            await self._call_off(spare, End(Fact.BROKEN, error))
            return
        if self._asked:
            await self._call_off(spare, End(Fact.EXITED))
            return
        heard, started = self._heard, self._started
        child: Child | Prepared
        if spare is None:
            leader = self._found.leader if self._found is not None else None
            child = Child(launch, where, on_line=heard, on_start=started, patience=self._patience, found=leader)
        else:
            child = Prepared(spare, launch, on_line=heard, on_start=started)
        self._child = child
        try:
            ended = await self._with_probe(child, where)
            if ended.left:
                self._log(logging.INFO, "goes on for the next life of the daemon")
                self.left = True
                self.over.set()
            else:
                self._end(self._explain(ended, launch.argv[0]))
        finally:
            self._child = None
            if self.upstream is not None:
                self.upstream.end("the server is shutting down")
                await self.upstream.close()

    async def _call_off(self, spare: Spare | None, end: End) -> None:
        if spare is not None:
            await spare.discard()
        self._end(end)

    async def _with_probe(self, child: Child | Prepared, where: Place) -> Exit:
        ended = Exit(0)
        async with anyio.create_task_group() as group:
            self._tasks = group
            group.start_soon(self._probe, where)
            group.start_soon(self.stuck.watch, child.members, self._cannot_end)
            ended = await child.run()
            group.cancel_scope.cancel()
        return ended

    async def _probe(self, where: Place) -> None:
        engine, plan = self.plan.engine, self.plan
        await probe.wait_ready(where.socket, engine.probe.ready, self._pace)
        self._slumber = Slumber(plan, where.socket)
        try:
            await self._slumber.begin()
        except EngineDiedError as error:
            self._log(logging.WARNING, f"will not be put to sleep: {error}")
        if self._weigh is not None:
            await self._weigh()
        self.phases.end()
        self.upstream = Upstream(engine, plan.model, plan.settings, where.socket)
        self._log(logging.INFO, f"is ready after {self.elapsed:.1f} s ({self.phases})")
        self._report(Fact.READY, None)
        self._house.started()
        await self._signs.watch(self.upstream, self.guard, self.pid)

    def _switch(self, change: Callable[[Slumber], Awaitable[None]], fact: Fact) -> None:
        assert self._tasks is not None  # noqa: S101 - only what serves, or sleeps, is told to change
        self._tasks.start_soon(self._change, change, fact)

    async def _change(self, change: Callable[[Slumber], Awaitable[None]], fact: Fact) -> None:
        assert self._slumber is not None  # noqa: S101 - it was made before READY was reported
        began = time.monotonic()
        try:
            await change(self._slumber)
        except EngineDiedError as error:
            self._log(logging.WARNING, f"is ended: {error}")
            self._sicken(error.message)
        else:
            if self.upstream is not None:
                self.upstream.asleep = fact is Fact.SLEPT
            self._log(
                logging.INFO, f"{'sleeps' if fact is Fact.SLEPT else 'is awake'} after {time.monotonic() - began:.2f} s"
            )
            self._report(fact, None)

    def _cannot_end(self, why: str) -> None:
        self._log(logging.ERROR, f"cannot be ended: {why}")

    def _falls_sick(self, line: str, why: str) -> None:
        self._log(logging.WARNING, line)
        self._sicken(why)

    def _sicken(self, why: str) -> None:
        self._sick = self._sick or why
        self._report(Fact.SICK, EngineDiedError(self._sick, hint=SEE_LOGS))

    def _started(self) -> None:
        assert self._child is not None  # noqa: S101 - it calls
        assert self._child.identity is not None  # noqa: S101 - set before it calls
        self.pid, self.guard = self._child.identity.pid, self._child.guard
        self.note()
        self._log(logging.INFO, f"{'is adopted' if self._found is not None else 'starts'} as process {self.pid}")
        self._progress()

    def _heard(self, line: str) -> None:
        self._ring.append(line)
        self._tail.append(line)
        if self.phase and (phase := self.plan.engine.phase(line)) and self.phases.enter(phase):
            self._progress()

    def _progress(self) -> None:
        if (
            not self._asked and not self._leaves
        ):  # one that was told to end may go on loading for a while, to no purpose
            self._progressed()

    def _explain(self, ended: Exit, program: str) -> End:
        if self._asked:
            return End(Fact.EXITED)
        served = self.upstream is not None
        return explain(self.plan, ended, program, list(self._tail), served=served, memory_kills=self._memory_kills)

    def _end(self, end: End) -> None:
        """Tell everybody, all at once: whoever asks from now on must not be sent here."""
        if self.upstream is not None:
            self.upstream.end(end.error.message if end.error else "the model was unloaded")
        if end.error is None:
            self._log(logging.INFO, "has ended")
        else:
            self._log(logging.ERROR, f"has failed: {end.error}")
        self.over.set()
        self._on_end(end)

    def _log(self, level: int, what: str) -> None:
        log.log(level, "%s %s", self.plan.engine.title, what, extra=self._fields)
