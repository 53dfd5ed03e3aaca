"""Where an engine lives: a place of its own, new or that of a process which was prepared for it, and its end.

Owns the choice between the two; must not know what goes on in a place.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

import anyio
import anyio.to_thread

from hyperllamad.config.paths import Paths
from hyperllamad.core.models import Placement
from hyperllamad.engines import compiled
from hyperllamad.engines.base import Host, Launch, Place
from hyperllamad.supervision import cgroups, place, precheck
from hyperllamad.supervision.cgroups import Delegation
from hyperllamad.supervision.plan import Plan
from hyperllamad.supervision.spares import Spare, Spares

log = logging.getLogger("hyperllamad.supervision")


class Housing:
    """Of one life: enter() once, then remove() what it returned, unless the engine goes on without us."""

    def __init__(
        self,
        plan: Plan,
        paths: Paths,
        host: Host,
        delegation: Delegation | None,
        spares: Spares,
        *,
        room: Placement | None,
    ) -> None:
        """`room` is the memory the engine may take; None = nobody counts."""
        self._plan = plan
        self._paths = paths
        self._host = host
        self._delegation = delegation
        self._spares = spares
        self._room = room

    def launch(self, where: Place) -> Launch:
        """How the engine is started there.  Raises HyperLlamaError."""
        plan = self._plan
        return plan.engine.launch(plan.model, plan.settings, plan.home, replace(where, room=self._room))

    async def enter(self) -> tuple[Place, Spare | None]:
        """A place, and the prepared process in it if there is one.  Raises HyperLlamaError."""
        plan, limits = self._plan, self._plan.settings.limits
        await anyio.to_thread.run_sync(precheck.check, plan.model)
        spare = self._spares.take(plan.home, limits, self.launch)
        if spare is not None:
            return spare.where, spare
        cache = compiled.of(self._paths.state, plan.home.id)
        made = place.make(self._paths.runtime, cache, self._host, delegation=self._delegation, limits=limits)
        return made, None

    @property
    def unenforced(self) -> list[str]:
        """Limits of the plan that nothing here enforces."""
        return cgroups.unenforced(self._plan.settings.limits, self._delegation)

    def started(self) -> None:
        """The start is over: the next process may be prepared."""
        self._spares.look()

    async def remove(self, where: Place) -> None:
        """Whatever is left there goes too; not cut short by a cancellation."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_remove, where)


def _remove(where: Place) -> None:
    directory = place.directory(where)
    with contextlib.suppress(FileNotFoundError):
        try:
            place.remove(directory, where.group)
        except OSError as failure:
            log.warning("%s cannot be removed: %s", failure.filename or directory, failure.strerror)
