"""The commands that change which models there are: pull, remove, copy."""

from __future__ import annotations

from hyperllamactl import protocol
from hyperllamactl.protocol import Progress
from hyperllamad.control.answer import Teller
from hyperllamad.control.reporting import Reporter, wait_reporting
from hyperllamad.control.rooms import Rooms
from hyperllamad.core.names import ModelName
from hyperllamad.store.steps import Step


async def pull(rooms: Rooms, command: protocol.Pull, teller: Teller) -> protocol.Done:
    """A hang-up ends the download unless somebody else watches it; what has come is kept for the next pull."""
    newest = Step("starting")

    def look() -> Progress:
        return Progress(phase=newest.status, done=newest.completed, total=newest.total)

    reporter = Reporter(teller, look)
    with await rooms.library.pull(command.model) as watch:

        async def follow() -> None:
            nonlocal newest
            async for step in watch:
                newest = step
                reporter.moved()

        await wait_reporting(follow(), reporter.run)
    return protocol.Done(message=f"{ModelName.parse(command.model)} is here")


async def remove(rooms: Rooms, command: protocol.Remove, _: Teller) -> protocol.Done:
    """A running copy stays until its time is over."""
    await rooms.library.delete(command.model)
    return protocol.Done(message=f"{ModelName.parse(command.model)} is removed")


async def copy(rooms: Rooms, command: protocol.Copy, _: Teller) -> protocol.Done:
    await rooms.library.copy(command.source, command.destination)
    name = ModelName.parse(command.destination)
    return protocol.Done(message=f"{name} is a second name of {ModelName.parse(command.source)}")
