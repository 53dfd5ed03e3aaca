"""Why things are as they are: `why`, `plan load`, `events`.  Records in, lines of the wire out."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from hyperllamactl.protocol.base import Done
from hyperllamactl.protocol.decisions import (
    Decision,
    Events,
    LeavingRow,
    LoadPlan,
    NeedRow,
    PlanLoad,
    ShareRow,
    Why,
    WhyReport,
)
from hyperllamad.control import views
from hyperllamad.control.answer import Teller
from hyperllamad.control.rooms import Rooms
from hyperllamad.core.errors import NoEngineError
from hyperllamad.core.models import Key, Model, Terms, key_of
from hyperllamad.core.question import STOP, Answer, Never, Placed, Question, Soon, Waits
from hyperllamad.supervision.events import Event

TOLD = 20  # decisions that `why` goes back


def why(rooms: Rooms, command: Why) -> WhyReport:
    """What an instance is, and how it came to that."""
    model = rooms.catalog.resolve(command.model)
    key = _key(rooms, model)
    rows = [row for row in rooms.supervisor.rows() if row.name == str(model.name) or row.instance == str(key)]
    events = rooms.supervisor.events.last(TOLD, key, str(model.name))
    return WhyReport(
        model=str(model.name),
        instances=[views.instance(row) for row in rows],
        decisions=[_decision(event) for event in events],
    )


async def events(rooms: Rooms, command: Events, teller: Teller) -> Done:
    """The last decisions and, when following, every one that comes, until the daemon ends."""
    with rooms.supervisor.events.watch() as coming:
        for event in rooms.supervisor.events.last(command.lines):
            await teller.tell(_decision(event))
        if command.follow:
            async for event in coming:
                await teller.tell(_decision(event))
    return Done()


async def plan_load(rooms: Rooms, command: PlanLoad, teller: Teller) -> LoadPlan:  # noqa: ARG001
    """Measure, and decide as if the model were asked for now."""
    model = rooms.catalog.resolve(command.model)
    engine = rooms.supervisor.settings(model).engine
    await rooms.supervisor.measure()
    key = _key(rooms, model)
    for row in rooms.supervisor.rows():
        if row.instance == str(key) and row.state == "ready":
            return LoadPlan(model=str(model.name), engine=engine, outcome="loaded", why="it is ready already")
    plan = LoadPlan(model=str(model.name), engine=engine, outcome="", why="")
    return _planned(plan, rooms, *rooms.supervisor.plan_load(model))


def _planned(plan: LoadPlan, rooms: Rooms, question: Question, answer: Answer, terms: Terms) -> LoadPlan:
    need = terms.need
    plan.need = NeedRow(weights=need.weights, kv_cache=need.kv_cache, overhead=need.overhead)
    match answer:
        case Placed(placement=placement, victims=victims):
            tenants = {tenant.key: tenant for tenant in question.tenants}
            plan.outcome, plan.why = "fits", "after others have left" if victims else "now"
            plan.shares = [ShareRow(gpu=share.index, size=share.bytes) for share in placement.shares]
            plan.leaving = [
                LeavingRow(
                    model=rooms.supervisor.name_of(victim.key),
                    how="unloads" if victim.level == STOP else "sleeps",
                    requests=tenants[victim.key].leases,
                    seconds=tenants[victim.key].load_seconds
                    if victim.level == STOP
                    else tenants[victim.key].wake_seconds,
                )
                for victim in victims
            ]
            plan.seconds = terms.wake_seconds if question.lies else terms.load_seconds
        case Waits(why=sentence) | Soon(why=sentence):
            plan.outcome, plan.why = "waits", sentence
        case Never(why=sentence):
            plan.outcome, plan.why = "never", sentence
    return plan


def _decision(event: Event) -> Decision:
    record = event.record
    return Decision(
        at=event.at,
        what=record.what,
        model=event.name,
        instance=record.key,
        why=event.why,
        inputs=msgspec.to_builtins(record.inputs),
        outcome=msgspec.to_builtins(record.outcome),
    )


def _key(rooms: Rooms, model: Model) -> Key | None:
    with suppress(NoEngineError):
        return key_of(model, rooms.supervisor.settings(model))
    return None
