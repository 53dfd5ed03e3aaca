"""What people see of the instances: a row for each, and every change as it happens.

Reads the fleet, the crew and the accounts; changes nothing in them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from hyperllamad.core.fleet import Fleet
from hyperllamad.core.instance import State
from hyperllamad.core.models import HOST, Key
from hyperllamad.core.placement import gib
from hyperllamad.supervision import rows
from hyperllamad.supervision.accounts import Accounts
from hyperllamad.supervision.broadcast import Broadcast, Watch
from hyperllamad.supervision.crew import Crew
from hyperllamad.supervision.rows import Change, Row


class Overview:
    """rows() and watch() at any time; tell() with every change."""

    def __init__(self, fleet: Fleet, crew: Crew, accounts: Accounts, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._crew = crew
        self._accounts = accounts
        self._clock = clock
        self._changes: Broadcast[Change] = Broadcast()
        self._memory = rows.MemoryMeter()
        self._calendar = rows.Calendar()

    def census(self) -> Counter[State]:
        """How many instances are in which state."""
        return Counter(view.state for view in self._fleet.views(self._clock()))

    def rows(self) -> tuple[Row, ...]:
        """Every instance, in the order in which the models were first wanted."""
        now = self._clock()
        unix = self._calendar.offset(now)
        crew = self._crew
        sizes = self._memory.sizes([guard for guard in crew.guards().values() if guard])
        found = []
        for view in self._fleet.views(now):
            life = crew.lives.get(view.key)
            size = sizes.get(life.guard, 0) if life is not None else 0
            sizes_there = self._accounts.sizes.get(view.key, {})
            on_gpus = sum(count for device, count in sizes_there.items() if device != HOST)
            found.append(rows.row(view, crew.plans[view.key], life, size=size, size_gpu=on_gpus, now=now, unix=unix))
        return tuple(found)

    def missing(self) -> tuple[str, ...]:
        """A sentence for each part of a GPU's memory that has not come back from an instance that ended."""
        return tuple(
            f"{gib(one.bytes)} of GPU {one.index} has not come back since {self._crew.name_of(str(one.key))} ended: "
            "a process that is stuck in the driver holds it, or another program has taken it"
            for one in self._fleet.missing
        )

    def prepared(self) -> dict[str, int]:
        """By home id, the bytes that processes hold which wait for a model to serve."""
        guards = self._crew.prepared()
        sizes = rows.MemoryMeter().sizes(list(guards.values()))
        return {home: sizes.get(guard, 0) for home, guard in guards.items()}

    def tell(self, key: Key, state: State) -> None:
        """An instance is in another state, or in another phase of loading."""
        life = self._crew.lives.get(key)
        view = self._fleet.view(key, self._clock())
        self._changes.send(
            Change(
                at=time.time(),
                name=str(self._crew.plans[key].model.name),
                instance=str(key),
                state=state,
                phase=life.phase if life is not None and state is State.STARTING else "",
                elapsed=life.elapsed if life is not None else 0.0,
                detail=str(view.error) if view is not None and view.error else "",
            )
        )

    def watch(self) -> Watch[Change]:
        """Every change from now on; use it as a context manager.  Ends at shutdown, or when its reader is too slow."""
        return self._changes.watch()

    def close(self) -> None:
        """Nothing more will come."""
        self._changes.close()
