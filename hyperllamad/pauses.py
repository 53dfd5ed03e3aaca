"""How long a connection may be idle, without a task for every pause between two requests.

Takes the place of Hypercorn's AsyncioSingleTask, which starts a task when a request ends, cancels it when the next one
comes, and waits for its end before that is read.  Here a pause is a timer, and a task only once it was too long.
Must not know what is done then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hypercorn.asyncio.task_group import TaskGroup

Action = Callable[[], Coroutine[Any, Any, None]]


class Pauses:
    """Those of all connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: float) -> None:
        """`patience` in seconds."""
        self.loop = loop
        self.patience = patience
        self.under_way: set[Pause] = set()

    def hasten(self, patience: float) -> None:
        """None lasts longer than so many seconds from now on."""
        self.patience = patience
        for pause in self.under_way:
            pause.begin()


class Pause:
    """That of one connection."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._too_long: tuple[asyncio.TaskGroup, Action] | None = None  # where, and what is done then
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def restart(self, tasks: TaskGroup, action: Action) -> None:
        """It begins; `action` is run among the `tasks` when it was too long."""
        await self.stop()
        self._too_long = tasks._task_group, action  # noqa: SLF001  # as AsyncioSingleTask does
        self._pauses.under_way.add(self)
        self.begin()

    def begin(self) -> None:
        """Its time runs from now on."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._pauses.loop.call_later(self._pauses.patience, self._end)

    def _end(self) -> None:
        self._pauses.under_way.discard(self)
        if self._too_long is None:
            return
        group, action = self._too_long
        doing = action()
        try:
            self._task = group.create_task(doing)
        except RuntimeError:  # the connection is ending already
            doing.close()

    async def stop(self) -> None:
        """Somebody asks again, or the connection is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._too_long = None
        self._pauses.under_way.discard(self)
        if (task := self._task) is not None:
            self._task = None
            task.cancel()
            await asyncio.wait([task])
