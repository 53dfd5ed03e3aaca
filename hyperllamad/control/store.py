"""The commands that change which models there are: pull, create, remove, copy, gc."""

from __future__ import annotations

import anyio

from hyperllamactl.protocol.base import Caution, Done, FilePart, Progress
from hyperllamactl.protocol.store import Collected, CollectGarbage, Copy, Create, GarbageRow, Pull, Remove
from hyperllamad.control.answer import Teller
from hyperllamad.control.reporting import Reporter, wait_reporting
from hyperllamad.control.rooms import Rooms
from hyperllamad.core.models import Message
from hyperllamad.core.names import ModelName
from hyperllamad.store.steps import Step
from hyperllamad.store.variants import Wanted


class _Transfer:
    """Where a job of the store stands: its newest step, and every file that it has told of."""

    def __init__(self) -> None:
        self._newest = Step("starting")
        self._files: dict[str, FilePart] = {}

    def hear(self, step: Step) -> None:
        self._newest = step
        if step.digest:
            self._files[step.digest] = FilePart(name=step.name, done=step.completed, total=step.total)

    def progress(self) -> Progress:
        files = list(self._files.values())
        if not self._newest.digest:
            return Progress(phase=self._newest.status, files=files)
        done, total = sum(file.done for file in files), sum(file.total for file in files)
        return Progress(phase="pulling", done=done, total=total, files=files)


async def pull(rooms: Rooms, command: Pull, teller: Teller) -> Done:
    """A hang-up ends the download unless somebody else watches it; what has come is kept for the next pull."""
    transfer = _Transfer()
    reporter = Reporter(teller, transfer.progress)
    with await rooms.library.pull(command.model) as watch:
        if watch.note:
            await teller.tell(Progress(phase="choosing", detail=watch.note.removeprefix("choosing ")))
        if watch.caution:
            await teller.tell(Caution(message=watch.caution))

        async def follow() -> None:
            async for step in watch:
                if step.status not in {watch.note, watch.caution}:
                    transfer.hear(step)
                    reporter.moved()

        await wait_reporting(follow(), reporter.run)
    return Done(message=f"{ModelName.parse(command.model)} is here")


async def create(rooms: Rooms, command: Create, teller: Teller) -> Done:
    """A base that is not here is pulled first; a hang-up ends that as it ends a pull."""
    wanted = Wanted(
        name=command.model,
        base=command.base,
        path=command.path,
        system=command.system,
        template=command.template,
        license=command.license,
        parameters=command.parameters,
        messages=[Message(turn.role, turn.content) for turn in command.messages],
        adapter_paths=command.adapters,
    )
    transfer = _Transfer()
    reporter = Reporter(teller, transfer.progress)

    def hear(step: Step) -> None:
        transfer.hear(step)
        reporter.moved()

    await wait_reporting(rooms.library.create(wanted, on_step=hear), reporter.run)
    return Done(message=f"{ModelName.parse(command.model)} is here")


async def remove(rooms: Rooms, command: Remove, _: Teller) -> Done:
    """A running copy stays until its time is over."""
    await rooms.library.delete(command.model)
    return Done(message=f"{ModelName.parse(command.model)} is removed")


async def copy(rooms: Rooms, command: Copy, _: Teller) -> Done:
    await rooms.library.copy(command.source, command.destination)
    name = ModelName.parse(command.destination)
    return Done(message=f"{name} is a second name of {ModelName.parse(command.source)}")


async def collect_garbage(rooms: Rooms, command: CollectGarbage, _: Teller) -> Collected:
    with anyio.CancelScope(shield=True):  # a thread that removes files is not to be left half way
        found = await rooms.library.collect_garbage(dry_run=command.dry_run)
    items = [GarbageRow(path=str(it.path), size=it.size, reason=it.reason) for it in found]
    return Collected(items=items, freed=sum(it.size for it in found), dry_run=command.dry_run)
