"""Engines that an earlier life of the daemon left running, and which of them this one may go on with.

Trusts what is running, not what is written: the state file in a place must name a guard and an engine that are alive
under the very start times it has, in the control group of that place where there are groups, and a key that a request
for the model would get now.  Everything else is left to the sweep.  Must not know the fleet.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperllamad.config.paths import Paths
from hyperllamad.core.actions import View
from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.models import Key, Model
from hyperllamad.engines import compiled
from hyperllamad.engines.base import Host, Place
from hyperllamad.supervision import cgroups, place, procfs
from hyperllamad.supervision.cgroups import Delegation
from hyperllamad.supervision.place import Leader, Stand
from hyperllamad.supervision.plan import Plan
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.supervision")

Resolve = Callable[[str], Model]


@dataclass(frozen=True, slots=True)
class Foundling:
    """One that may be taken over."""

    plan: Plan
    where: Place
    leader: Leader
    stand: Stand

    @property
    def keep_alive(self) -> float:
        return math.inf if self.stand.keep_alive is None else self.stand.keep_alive

    @property
    def directory(self) -> Path:
        return place.directory(self.where)


def stand(key: Key, plan: Plan, view: View | None, names: Collection[str]) -> Stand:
    """What the next life must know of an instance; `names` are those that it was asked for by."""
    keep_alive = view.keep_alive if view is not None else 0.0
    return Stand(
        name=str(plan.model.name),
        names=tuple(sorted(names)),
        digest=key.digest,
        settings=key.settings,
        keep_alive=None if keep_alive == math.inf else keep_alive,
        placement=view.placement if view is not None else None,
    )


def find(
    paths: Paths, host: Host, delegation: Delegation | None, plan: Callable[[Model], Plan], resolve: Resolve
) -> Iterator[Foundling]:
    """Every one in the runtime directory.  Says why one is not taken over."""
    groups = {name: str(path) for name, path in delegation.groups()} if delegation is not None else {}
    taken: set[Key] = set()
    for directory in sorted(place.root(paths.runtime).glob("*")):
        leader = place.read(directory)
        if leader is None or leader.stand is None:
            continue
        group = groups.get(directory.name, "")
        if not _runs(leader, directory, group):
            continue
        try:
            planned = plan(resolve(leader.stand.name))
        except HyperLlamaError as failure:
            _refuse(leader.stand, str(failure))
            continue
        if planned.key != Key(leader.stand.digest, leader.stand.settings) or planned.key in taken:
            _refuse(leader.stand, "the model would be run otherwise now")
            continue
        taken.add(planned.key)
        where = place.of(directory, compiled.of(paths.state, planned.home.id), host, group)
        yield Foundling(planned, where, leader, leader.stand)


def _runs(leader: Leader, directory: Path, group: str) -> bool:
    """Whether guard and engine are those of this place, and nobody else's."""
    if leader.boot != procfs.boot_id() or leader.guard is None or leader.engine is None:
        return False
    if leader.daemon.alive and leader.daemon != procfs.myself():
        return False
    if not (leader.guard.alive and leader.engine.alive and procfs.is_ours(leader.guard.pid)):
        return False
    parent = procfs.process(leader.engine.pid)
    inside = not group or leader.engine.pid in cgroups.members(Path(group))
    marked = f"{place.MARK}={directory}".encode() in procfs.environment(leader.guard.pid)
    return parent is not None and parent.parent == leader.guard.pid and inside and marked


def _refuse(stand: Stand, why: str) -> None:
    log.info("an engine that was left running is ended: %s", why, extra=fields(model=stand.name))
