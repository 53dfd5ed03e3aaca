"""A command that is still running: what it has told so far, and its end."""

from __future__ import annotations

import anyio

from hyperllamactl.protocol.base import Command
from tests.control.conftest import Answer, Door


class Later:
    """The answer to a call that is running."""

    def __init__(self, door: Door, command: Command, tasks: anyio.abc.TaskGroup) -> None:
        self.done = anyio.Event()
        self.answer: Answer | None = None
        tasks.start_soon(self._run, door, command)

    async def _run(self, door: Door, command: Command) -> None:
        self.answer = await door.call(command)
        self.done.set()

    async def wait(self) -> Answer:
        await self.done.wait()
        assert self.answer is not None
        return self.answer
