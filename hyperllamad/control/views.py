"""What the rooms below know, in the words of the wire.  Pure, but for the look at a model's engine."""

from __future__ import annotations

from collections.abc import Sequence

from hyperllamactl.protocol.engines import EngineRow
from hyperllamactl.protocol.instances import Change, InstanceRow
from hyperllamactl.protocol.store import ModelDetails, ModelRow
from hyperllamad.control.rooms import Rooms
from hyperllamad.core.errors import NoEngineError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Model
from hyperllamad.engines.base import Engine, Home
from hyperllamad.supervision import rows

ID_DIGITS = 12  # of a digest, as Ollama shows it
_HAS_AN_END = {State.READY, State.ASLEEP, State.DRAINING, State.STOPPING}


def instance(row: rows.Row) -> InstanceRow:
    """`ps` in one line."""
    return InstanceRow(
        name=row.name,
        id=row.digest[:ID_DIGITS],
        engine=row.engine,
        state=row.state,
        phase=row.phase,
        phases={name: round(seconds, 2) for name, seconds in row.phases.items()},
        size=row.size,
        size_gpu=row.size_gpu,
        gpus=list(row.gpus),
        reserved=row.reserved,
        processor=row.processor,
        context=row.context,
        parallel=row.parallel,
        running=row.running,
        waiting=row.waiting,
        restarts=row.restarts,
        since=row.since,
        until=row.until if row.state in _HAS_AN_END else None,
        pid=row.pid,
        cause=row.cause,
    )


def change(what: rows.Change) -> Change:
    return Change(at=what.at, name=what.name, state=what.state, phase=what.phase, detail=what.detail)


def model(rooms: Rooms, what: Model) -> ModelRow:
    """`list` in one line, with the engine that would serve the model now."""
    engine, problem = "", ""
    try:
        engine = rooms.supervisor.settings(what).engine
    except NoEngineError as failure:
        problem = str(failure)
    return ModelRow(
        name=str(what.name),
        id=what.digest[:ID_DIGITS],
        size=what.size,
        modified_at=what.modified_at,
        format=what.format,
        family=what.family,
        parameter_size=what.parameter_size,
        quantization=what.quantization,
        engine=engine,
        problem=problem,
    )


def details(rooms: Rooms, what: Model) -> ModelDetails:
    return ModelDetails(
        model=model(rooms, what),
        path=what.path,
        architecture=what.architecture,
        context_length=what.context_length,
        embedding_length=what.embedding_length,
        capabilities=sorted(what.capabilities),
        system=what.system,
        parameters=dict(what.parameters),
        license=what.license,
    )


def engine(what: Engine, homes: Sequence[Home], current: Home | None) -> list[EngineRow]:
    """`engine list` of one engine: a line for each home, or one that says there is none."""
    variants = list(what.variants)
    if not homes:
        return [EngineRow(name=what.name, title=what.title, variants=variants)]
    return [
        EngineRow(
            name=what.name,
            title=what.title,
            version=home.version,
            variant=home.variant,
            id=home.id,
            path=home.path,
            size=home.size,
            installed_at=home.installed_at,
            installed=True,
            in_use=home == current,
            variants=variants,
        )
        for home in homes
    ]
