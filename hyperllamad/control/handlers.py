"""What each command does, in a few lines over the rooms below.  Who may ask was decided before.

A command that answers at once is a function, plain or a coroutine, from the command to its reply.  One that takes time
is a coroutine that tells lines on the way and returns the last one; when its client hangs up it is cancelled, and
leaving it must give back what it holds.  Failures are raised as HyperLlamaError.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from hyperllamactl import __version__
from hyperllamactl.protocol.base import Caution, Command, Done, Progress, Reply
from hyperllamactl.protocol.daemon import Reload, Status, StatusReport
from hyperllamactl.protocol.decisions import Events, PlanLoad, Why
from hyperllamactl.protocol.engines import EngineInstall, EngineList, EngineRemove
from hyperllamactl.protocol.instances import Instances, Load, LogLine, Logs, Ps, Unload, Warm, Watch
from hyperllamactl.protocol.keys import KeyList, KeyNew, KeyRemove
from hyperllamactl.protocol.machine import Info, Recommend
from hyperllamactl.protocol.store import (
    BrokenModel,
    CollectGarbage,
    Copy,
    Create,
    List,
    ModelDetails,
    Models,
    Pull,
    Remove,
    Show,
)
from hyperllamad.control import decisions, discovery, engines, keys, outlook, store, views
from hyperllamad.control.answer import Teller
from hyperllamad.control.errors import NotLoadedError
from hyperllamad.control.reporting import Reporter, wait_reporting
from hyperllamad.control.rooms import Rooms
from hyperllamad.core import durations
from hyperllamad.core.errors import ClosingError, NoEngineError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Model, key_of
from hyperllamad.core.names import ModelName
from hyperllamad.supervision import procfs
from hyperllamad.supervision.rows import Row

# -- answered at once --------------------------------------------------------------------------------------------------


async def status(rooms: Rooms, _: Status) -> StatusReport:
    missing = await rooms.supervisor.missing()
    rows = rooms.supervisor.rows()
    return StatusReport(
        version=__version__,
        pid=os.getpid(),
        started_at=rooms.started_at,
        url=rooms.url,
        config=str(rooms.config.paths.config),
        config_error=rooms.reloader.error,
        engines=[home.id for home in rooms.homes.in_use()],
        models=len(rooms.catalog.list()),
        requests=sum(row.running for row in rows),
        waiting=sum(row.waiting for row in rows),
        memory=procfs.resident([os.getpid()]),
        prepared=rooms.supervisor.prepared(),
        gpu_problems=[*rooms.gpu_problems(), *missing],
        instances=[views.instance(row) for row in rows],
    )


def ps(rooms: Rooms, _: Ps) -> Instances:
    return Instances(instances=[views.instance(row) for row in rooms.supervisor.rows()])


def list_models(rooms: Rooms, _: List) -> Models:
    broken = [
        BrokenModel(name=problem.name, path=problem.path, problem=problem.sentence)
        for problem in rooms.catalog.problems()
    ]
    return Models(models=[views.model(rooms, model) for model in rooms.catalog.list()], broken=broken)


def show(rooms: Rooms, command: Show) -> ModelDetails:
    return views.details(rooms, rooms.catalog.resolve(command.model))


# -- loading and unloading ---------------------------------------------------------------------------------------------


async def load(rooms: Rooms, command: Load, teller: Teller) -> Instances:
    """Hold a lease until it is granted, then give it back: the model stays for its keep_alive, as after a request."""
    keep_alive = durations.keep_alive(command.keep_alive)
    model = rooms.catalog.resolve(command.model)
    if sentence := await outlook.caution(rooms, model):
        await teller.tell(Caution(message=sentence))
    rooms.supervisor.retry(model)  # who asks for it by hand has perhaps mended what made it fail
    lease = rooms.supervisor.lease(model, keep_alive=keep_alive)
    instance = str(lease.key)

    def look() -> Progress:
        row = _row(rooms, instance)
        if row is None:
            return Progress(phase=State.WAITING, detail="for another model to make room")
        return Progress(phase=row.phase or row.state, detail=row.cause)

    reporter = Reporter(teller, look)
    try:
        await wait_reporting(lease.granted(), reporter.run, lambda: _follow(rooms, {instance}, reporter))
        held = _row(rooms, instance)
    finally:
        lease.release()
    row = _row(rooms, instance) or held  # gone already, when it was not to be kept
    return Instances(instances=[views.instance(row)] if row else [])


async def warm(rooms: Rooms, command: Warm, teller: Teller) -> Done:
    """A load that nobody keeps.  What its engine compiles is kept, see engines.compiled."""
    model = rooms.catalog.resolve(command.model)
    served = {State.READY, State.ASLEEP, State.DRAINING}
    if any(row.instance in _instances(rooms, model) and row.state in served for row in rooms.supervisor.rows()):
        return Done(message=f"{model.name} is loaded, so its caches are warm")
    loaded = await load(rooms, Load(model=command.model, keep_alive=0), teller)
    phases = ", ".join(f"{phase} {took:.1f} s" for row in loaded.instances for phase, took in row.phases.items())
    return Done(message=f"{model.name} is warm: {phases or 'it was loaded once'}")


async def unload(rooms: Rooms, command: Unload, teller: Teller) -> Done:
    """Send the model away and wait until nothing is left of it.  A hang-up ends the wait only."""
    model = rooms.catalog.resolve(command.model)
    leaving = _instances(rooms, model)

    def look() -> Progress:
        rows = [row for row in rooms.supervisor.rows() if row.instance in leaving]
        running = sum(row.running for row in rows)
        requests = f"{running} request{'s' if running > 1 else ''} to finish" if running else ""
        return Progress(phase=rows[0].state if rows else State.GONE, detail=requests)

    reporter = Reporter(teller, look)
    with rooms.supervisor.watch() as changes:
        if not rooms.supervisor.unload(model, cut=command.now):
            raise NotLoadedError(str(model.name))

        async def wait_gone() -> None:
            # By the change, not by the rows: requests that wait for the model start it anew, under the same key.
            async for change in changes:
                if change.instance in leaving and change.state is State.GONE:
                    leaving.remove(change.instance)
                if not leaving:
                    return
                reporter.moved()
            raise ClosingError

        await wait_reporting(wait_gone(), reporter.run)
    return Done(message=f"{model.name} is unloaded")


def _row(rooms: Rooms, instance: str) -> Row | None:
    return next((row for row in rooms.supervisor.rows() if row.instance == instance), None)


def _instances(rooms: Rooms, model: Model) -> set[str]:
    """The instances that unload() means: the one the model would get now, and those loaded under its name before."""
    rows = rooms.supervisor.rows()
    found = {row.instance for row in rows if row.name == str(model.name)}
    with suppress(NoEngineError):
        found.add(str(key_of(model, rooms.supervisor.settings(model))))
    return found & {row.instance for row in rows}


async def _follow(rooms: Rooms, instances: set[str], reporter: Reporter) -> None:
    with rooms.supervisor.watch() as changes:
        async for change in changes:
            if change.instance in instances:
                reporter.moved()


async def reload(rooms: Rooms, _: Reload, teller: Teller) -> Done:
    """The new configuration is in force before anything is waited for; a hang-up does not take it back."""
    waits_for = ""

    def moved(what: str) -> None:
        nonlocal waits_for
        waits_for = what
        reporter.moved()

    reporter = Reporter(teller, lambda: Progress(phase="reloading", detail=waits_for))
    return Done(message=await wait_reporting(rooms.reloader.reload(moved), reporter.run))


# -- watching ----------------------------------------------------------------------------------------------------------


async def logs(rooms: Rooms, command: Logs, teller: Teller) -> Done:
    """What was printed, then, when following, what comes, until the engine has ended for good."""
    ring = rooms.supervisor.logs(ModelName.parse(command.model))
    if ring is None:
        raise NotLoadedError(str(rooms.catalog.resolve(command.model).name))
    with ring.follow() as coming:
        past = list(ring)
        for line in past[max(0, len(past) - command.lines) :]:
            await teller.tell(LogLine(at=line.at, text=line.text))
        if not command.follow:
            return Done()
        async for line in coming:
            await teller.tell(LogLine(at=line.at, text=line.text))
    return Done(message="the engine has ended")


async def watch(rooms: Rooms, _: Watch, teller: Teller) -> Done:
    """Every change from now on, until the daemon ends."""
    with rooms.supervisor.watch() as changes:
        async for change in changes:
            await teller.tell(views.change(change))
    return Done(message="nothing more to watch: hyperllamad shuts down, or its reader was too slow")


# -- the map -----------------------------------------------------------------------------------------------------------

AT_ONCE: Mapping[type[Command], Callable[[Rooms, Any], Reply | Awaitable[Reply]]] = {
    Status: status,
    Ps: ps,
    List: list_models,
    Show: show,
    Why: decisions.why,
    EngineList: engines.list_engines,
    KeyList: keys.list_keys,
    Info: discovery.info,
    Recommend: discovery.recommend,
}
STREAMS: Mapping[type[Command], Callable[[Rooms, Any, Teller], Awaitable[Reply]]] = {
    Pull: store.pull,
    Remove: store.remove,
    Copy: store.copy,
    Create: store.create,
    CollectGarbage: store.collect_garbage,
    Reload: reload,
    Load: load,
    Warm: warm,
    Unload: unload,
    Logs: logs,
    Watch: watch,
    PlanLoad: decisions.plan_load,
    Events: decisions.events,
    EngineInstall: engines.install,
    EngineRemove: engines.remove,
    KeyNew: keys.new,
    KeyRemove: keys.remove,
}
