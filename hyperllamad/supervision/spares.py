"""Engine processes that have done their imports and wait for a model to serve, one for each home that keeps one.

Owns them from before their spawn until a life takes one over, or the daemon ends; whoever takes one has a child like
any other, under the same kind of guard.  Must not know the fleet, nor which models there are.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import anyio
import msgspec

from hyperllamad.config.tables import Config
from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.models import UNLIMITED, Limits
from hyperllamad.engines import base, compiled
from hyperllamad.engines.base import Home, Host, Launch, Place, Preparation
from hyperllamad.engines.homes import Homes
from hyperllamad.supervision import place
from hyperllamad.supervision.cgroups import Delegation
from hyperllamad.supervision.child import LAST_WAIT, Child, Exit
from hyperllamad.supervision.procfs import Identity
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.supervision")

KEPT_LINES = 200  # of what it printed before somebody took it


class Spare:
    """One such process: run() once, in a task that outlives whoever takes it."""

    def __init__(self, home: Home, preparation: Preparation, where: Place, patience: float = 0.0) -> None:
        """`patience`: see child.Child."""
        self.home = home
        self.where = where
        self.launch = preparation.launch
        self.patience = patience
        self.taken = False
        self.discarded = False
        self.ended = anyio.Event()  # nobody of it is left
        self.exit = Exit(0)
        self._late = preparation.late
        self._ready = anyio.Event()  # it waits for orders, or has ended
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line: Callable[[str], None] = self._lines.append
        self._says = preparation.says
        self._program = preparation.launch.argv[: preparation.program]
        self._on_start: Callable[[], None] | None = None
        self.child = Child(self.launch, where, on_line=self._heard, on_start=self._started, patience=patience)

    def serves(self, launch: Launch) -> bool:
        """Whether it can still become what `launch` would have started: the same program, and no variable too late."""
        mine, wanted = self.launch.env, launch.env
        differing = {name for name in mine.keys() | wanted.keys() if mine.get(name) != wanted.get(name)}
        return launch.argv[: len(self._program)] == self._program and differing <= self._late & wanted.keys()

    async def run(self) -> None:
        """Until nobody of it is left."""
        try:
            self.exit = await self.child.run()
        finally:
            self._ready.set()
            self.ended.set()

    def hand_over(self, on_line: Callable[[str], None], on_start: Callable[[], None]) -> None:
        """What it prints, and has printed, goes to `on_line`; `on_start` is told that it runs, now or once it does."""
        for line in self._lines:
            on_line(line)
        self._on_line, self._on_start = on_line, on_start
        if self.child.identity is not None:
            on_start()

    async def order(self, launch: Launch) -> bool:
        """Have it do what `launch` says; False when it cannot any more, and is to be ended."""
        await self._ready.wait()
        changed = {name: value for name, value in launch.env.items() if self.launch.env.get(name) != value}
        told = msgspec.json.encode({"argv": launch.argv[len(self._program) :], "env": changed}) + b"\n"
        with contextlib.suppress(OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            async with await anyio.connect_unix(self.where.orders) as stream:
                await stream.send(told)
                return bool(await stream.receive())
        return False

    async def discard(self) -> None:
        """End it, unused."""
        self.discarded = True
        self.child.kill()
        await self.ended.wait()

    def why(self) -> str:
        """Why it ended, as its engine's adapter understands it."""
        return base.load(self.home.engine).explain_exit(self.exit.code, list(self._lines)).cause

    def _started(self) -> None:
        if self._on_start is not None:
            self._on_start()

    def _heard(self, line: str) -> None:
        if self._says in line:
            self._ready.set()
        self._on_line(line)

    def __repr__(self) -> str:
        state = (
            "ended" if self.ended.is_set() else "taken" if self.taken else "ready" if self._ready.is_set() else "new"
        )
        return f"<Spare {self.home.id} {state}>"


class Prepared:
    """A spare as the life that took it sees it: a child.Child.  Starts a fresh one should the spare have died."""

    def __init__(
        self, spare: Spare, launch: Launch, *, on_line: Callable[[str], None], on_start: Callable[[], None]
    ) -> None:
        self._spare = spare
        self._launch = launch
        self._on_line = on_line
        self._on_start = on_start
        self._child = spare.child
        self._asked = False

    @property
    def identity(self) -> Identity | None:
        return self._child.identity

    @property
    def guard(self) -> int:
        return self._child.guard

    def members(self) -> list[int]:
        return self._child.members()

    @property
    def can_be_left(self) -> bool:
        return self._child.can_be_left

    def leave(self) -> None:
        self._child.leave()

    def terminate(self) -> None:
        self._asked = True
        self._child.terminate()

    def kill(self) -> None:
        self._asked = True
        self._child.kill()

    async def run(self) -> Exit:
        """As Child.run()."""
        self._spare.hand_over(self._on_line, self._on_start)
        try:
            if await self._spare.order(self._launch) or self._asked:
                await self._spare.ended.wait()
                return self._spare.exit
            self._child.kill()
            await self._spare.ended.wait()
            if self._asked:  # meanwhile
                return self._spare.exit
        except BaseException:
            self._child.kill()
            with anyio.move_on_after(LAST_WAIT, shield=True):
                await self._spare.ended.wait()
            raise
        log.warning("a prepared process has ended before it was used", extra=fields(engine=self._spare.home.engine))
        where, patience = self._spare.where, self._spare.patience
        place.vacate(where)
        self._child = Child(self._launch, where, on_line=self._on_line, on_start=self._on_start, patience=patience)
        return await self._child.run()


class Spares:
    """Keeps one for each home in use whose engine can prepare one and whose configuration wants it."""

    def __init__(self, config: Config, homes: Homes, host: Host) -> None:
        self._config = config
        self._homes = homes
        self._host = host
        # The mutable state is these two: those that nobody has taken, by home, and whether to look again.
        self._spares: dict[str, Spare] = {}
        self._look = anyio.Event()

    def configure(self, config: Config, host: Host) -> None:
        """Prepare by another configuration from now on; a spare that does not fit any more is replaced."""
        self._config = config
        self._host = host
        self._look.set()

    def look(self) -> None:
        """Make those that are missing, now, and end those that nobody would take any more.

        The machine is not busy with a start, as far as the caller knows.
        """
        self._look.set()

    def take(self, home: Home, limits: Limits, launch_in: Callable[[Place], Launch]) -> Spare | None:
        """The spare of `home`, for the caller alone and with its place; None when there is none that fits.

        `launch_in` says how the engine would be started in a place.  A model with limits of its own gets no spare: its
        control group was made without.  Raises what `launch_in` raises.
        """
        spare = self._spares.get(home.id)
        if spare is None or spare.ended.is_set() or limits != UNLIMITED or not spare.serves(launch_in(spare.where)):
            return None
        del self._spares[home.id]
        spare.taken = True
        return spare

    async def drop(self, home: Home) -> None:
        """End the one of `home`, which is about to go away."""
        if spare := self._spares.pop(home.id, None):
            await spare.discard()

    @property
    def guards(self) -> dict[str, int]:
        """By home id, the guards above those that wait: their memory is ours too."""
        return {home: spare.child.guard for home, spare in self._spares.items() if spare.child.guard}

    async def run(self, delegation: Delegation | None = None) -> None:
        """Until cancelled, which ends them all, the taken ones too.  They get control groups from `delegation`."""
        async with anyio.create_task_group() as group:
            while True:
                for old in [spare for spare in self._spares.values() if self._is_stale(spare)]:
                    del self._spares[old.home.id]
                    group.start_soon(old.discard)
                for home in self._homes.in_use():
                    if (
                        home.id not in self._spares
                        and self._wanted(home)
                        and (spare := await self._make(home, delegation))
                    ):
                        self._spares[home.id] = spare
                        group.start_soon(self._keep, spare)
                await self._look.wait()
                self._look = anyio.Event()

    def _wanted(self, home: Home) -> bool:
        return self._config.engine_table(home.engine).prepares(home.device)

    def _is_stale(self, spare: Spare) -> bool:
        """Its home is in use no more, or it would be prepared otherwise now."""
        if spare.home not in self._homes.in_use() or not self._wanted(spare.home):
            return True
        env = self._config.engine_table(spare.home.engine).env
        now = base.load(spare.home.engine).prepare(spare.home, replace(spare.where, host=self._host), env)
        return now is None or now.launch != spare.launch

    async def _make(self, home: Home, delegation: Delegation | None) -> Spare | None:
        """A spare that is not yet running; None where the engine knows no such thing."""
        try:
            cache = compiled.of(self._config.paths.state, home.id)
            where = place.make(self._config.paths.runtime, cache, self._host, delegation=delegation)
        except HyperLlamaError as error:
            log.warning("nothing is prepared: %s", error, extra=fields(engine=home.engine))
            return None
        env = self._config.engine_table(home.engine).env
        preparation = base.load(home.engine).prepare(home, where, env)
        if preparation is None:
            await anyio.to_thread.run_sync(_remove, where)
            return None
        return Spare(home, preparation, where, self._config.fleet.adopt_within_seconds)

    async def _keep(self, spare: Spare) -> None:
        try:
            await spare.run()
        finally:
            if not spare.taken:
                if self._spares.get(spare.home.id) is spare:
                    del self._spares[spare.home.id]
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(_remove, spare.where)
        if (
            not spare.taken and not spare.discarded
        ):  # it is tried again after the next start of an engine, not now: it would fail again
            log.warning("a prepared process has ended by itself: %s", spare.why(), extra=fields(home=spare.home.id))


def _remove(where: Place) -> None:
    with contextlib.suppress(OSError):
        place.remove(place.directory(where), where.group)
