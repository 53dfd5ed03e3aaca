"""Progress beside a wait: while something takes its time, the client hears how far it is and that it still goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio

from hyperllamactl.protocol.base import Progress
from hyperllamad.control.answer import Teller
from hyperllamad.core.errors import HyperLlamaError

T = TypeVar("T")

HEARTBEAT = 1.0  # seconds between two lines when nothing moves: shows the time, and that the daemon lives


class Reporter:
    """Sends where things stand, whenever they moved and at every heartbeat.

    `look` says where they stand then; so a slow client misses steps, and holds nothing up.
    """

    def __init__(self, teller: Teller, look: Callable[[], Progress]) -> None:
        self._teller = teller
        self._look = look
        self._moved = anyio.Event()

    def moved(self) -> None:
        """There is something new to see."""
        self._moved.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            self._moved = anyio.Event()  # before the look, so that what moves while it is sent is not missed
            await self._teller.tell(self._look())
            with anyio.move_on_after(HEARTBEAT):
                await self._moved.wait()


async def wait_reporting(work: Awaitable[T], *beside: Callable[[], Coroutine[Any, Any, None]]) -> T:
    """Await `work` with `beside` running until it is done; raises its HyperLlamaError as it is."""
    async with anyio.create_task_group() as tasks:
        for task in beside:
            tasks.start_soon(task)
        try:
            outcome: T | HyperLlamaError = await work
        except HyperLlamaError as failure:  # not through the group, which would wrap it
            outcome = failure
        tasks.cancel_scope.cancel()
    if isinstance(outcome, HyperLlamaError):
        raise outcome
    return outcome
