"""The commands about engines: which homes there are, a new one, one less."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import anyio.from_thread
import anyio.to_thread

from hyperllamactl.protocol.base import Done, Progress
from hyperllamactl.protocol.engines import EngineInstall, EngineList, EngineRemove, Engines
from hyperllamad import packages
from hyperllamad.control import views
from hyperllamad.control.answer import Teller
from hyperllamad.control.errors import NotInstalledError
from hyperllamad.control.reporting import Reporter, wait_reporting
from hyperllamad.control.rooms import Rooms
from hyperllamad.core.errors import BadRequestError, InUseError
from hyperllamad.core.instance import State
from hyperllamad.engines import base, compiled
from hyperllamad.engines import install as installer
from hyperllamad.engines.base import Engine, Home


def list_engines(rooms: Rooms, _: EngineList) -> Engines:
    rows = []
    for name in base.NAMES:
        homes = [home for home in rooms.homes.all() if home.engine == name]
        rows += views.engine(base.load(name), homes, rooms.homes.current(name))
    return Engines(engines=rows)


async def install(rooms: Rooms, command: EngineInstall, teller: Teller) -> Done:
    """The install belongs to its command: a client that hangs up cancels it, and no half home is left."""
    engine = _engine(command.name)
    newest = Progress(phase="starting", detail=engine.title)
    reporter = Reporter(teller, lambda: newest)

    def on_progress(step: packages.Progress) -> None:
        nonlocal newest
        newest = Progress(phase=step.phase, detail=step.detail, done=step.done, total=step.total)
        reporter.moved()

    work = installer.install(
        engine,
        version=command.version,
        variant=command.variant,
        homes=rooms.homes,
        table=rooms.config.engine_table(engine.name),
        on_progress=on_progress,
    )
    home = await wait_reporting(work, reporter.run)
    current = rooms.homes.current(engine.name)
    # Another one stays in use where the configuration names it.
    use = f"; {current.id} stays in use" if current and current.id != home.id else "; new instances run in it"
    return Done(message=f"{engine.title} {home.version} ({home.variant}) is installed{use}")


async def remove(rooms: Rooms, command: EngineRemove, teller: Teller) -> Done:
    engine = _engine(command.name)
    homes = [home for home in rooms.homes.all() if home.engine == engine.name]
    home = _meant(homes, engine, command)
    await teller.tell(Progress(phase="removing", detail=home.id))
    _check_unused(rooms, home)
    # The only home needs no force: who names its engine can mean nothing else.
    if len(homes) > 1 and home == rooms.homes.current(engine.name) and not command.force:
        hint = "remove it all the same with --force (`force` on the wire); another one takes its place then"
        raise InUseError(f"{home.id} is the one new instances run in", hint=hint)
    vacate = partial(anyio.from_thread.run, _vacate, rooms, home)
    await anyio.to_thread.run_sync(partial(rooms.homes.remove, home, force=True, vacate=vacate))
    # It is for no other home, not even of the same version.
    await anyio.to_thread.run_sync(compiled.remove, rooms.config.paths.state, home.id)
    return Done(message=f"{home.id} is removed")


async def _vacate(rooms: Rooms, home: Home) -> None:
    """Once nobody finds it any more: an instance may have been started there since the first look."""
    _check_unused(rooms, home)
    await rooms.supervisor.leave(home)


def _engine(name: str) -> Engine:
    if name not in base.NAMES:
        raise BadRequestError(f"there is no engine '{name}'", hint=f"engines are: {', '.join(base.NAMES)}")
    return base.load(name)


def _meant(homes: Sequence[Home], engine: Engine, command: EngineRemove) -> Home:
    """The one of the engine's homes that the command describes."""
    meant = [home for home in homes if command.version in {"", home.version} and command.variant in {"", home.variant}]
    if not meant:
        what = " ".join(filter(None, (engine.title, command.version, command.variant)))
        there = (
            f"there are: {', '.join(home.id for home in homes)}" if homes else "`hyperllamactl engine list` shows all"
        )
        raise NotInstalledError(f"{what} is not installed", hint=there)
    if len(meant) > 1:
        ids = ", ".join(home.id for home in meant)
        raise BadRequestError(
            f"{engine.title} is installed more than once: {ids}", hint="say which: --version, --variant"
        )
    return meant[0]


def _check_unused(rooms: Rooms, home: Home) -> None:
    """Raises InUseError with the models that run there, or are about to: one without a process yet runs as well."""
    users = [row.name for row in rooms.supervisor.rows() if row.home == home.id and row.state is not State.FAILED]
    if users:
        hint = f"unload first: {', '.join(users)}"
        raise InUseError(f"{home.id} cannot be removed while {base.load(home.engine).title} runs", hint=hint)
