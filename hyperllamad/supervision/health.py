"""Watches one ready engine for as long as it is ready, and says when it is stuck.

Measures for core/progress.py, which judges.  Sleeps while nobody asks anything of the engine, but for a cheap look
now and then; must not know what follows from the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import anyio
import anyio.abc

from hyperllamad.core import progress
from hyperllamad.core.progress import Look, Progress
from hyperllamad.supervision import probe
from hyperllamad.supervision.activity import Meter
from hyperllamad.supervision.probe import Answer, Pace
from hyperllamad.supervision.upstream import Upstream

ERRORS = 2  # answers in a row that are errors, to the plainest of all requests


class Health:
    """wait_sick() once."""

    def __init__(self, upstream: Upstream, pids: Callable[[], Sequence[int]], pace: Pace) -> None:
        """`pids` are the engine's processes; asked only when nothing comes any more."""
        self._upstream = upstream
        self._pids = pids
        self._pace = pace
        self._progress = Progress(pace.limits)
        self._meter = Meter()
        self._sick = ""
        self._over = anyio.Event()
        self._asking = False

    async def wait_sick(self) -> str:
        """Until it is stuck; why, as the end of a sentence that begins with the engine's name."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._look_when_busy, group)
            group.start_soon(self._look_when_idle, group)
            group.start_soon(self._ask_when_suspected, group)
            await self._over.wait()
            group.cancel_scope.cancel()
        return self._sick

    async def _look_when_busy(self, group: anyio.abc.TaskGroup) -> None:
        """A look a second, while there is a request."""
        while True:
            await self._upstream.wait_asked()
            while self._upstream.requests:
                self._judge(group)
                await anyio.sleep(self._pace.busy)
            self._judge(group)  # nothing is expected: the clocks start again

    async def _look_when_idle(self, group: anyio.abc.TaskGroup) -> None:
        """Now and then, asked nothing: does it answer at all?  More rarely: does it still make tokens?"""
        idle, pieces = 0.0, 0
        while True:
            await anyio.sleep(self._pace.health)
            if self._upstream.requests or self._upstream.asleep:
                continue
            idle = idle + self._pace.health if pieces == self._upstream.pieces else 0.0
            pieces = self._upstream.pieces
            well = await probe.is_well(self._upstream.session, self._upstream.engine.probe.ready, self._pace.answer)
            if not well or idle >= self._pace.idle:
                idle = 0.0
                self._ask(group)

    async def _ask_when_suspected(self, group: anyio.abc.TaskGroup) -> None:
        while True:
            await self._upstream.wait_suspected()
            self._ask(group)

    def _judge(self, group: anyio.abc.TaskGroup) -> None:
        if doubt := self._progress.look(self._look()):
            if self._progress.stuck:
                self._end(f"made no token for {self._progress.quiet:.0f} s, and {doubt}; it was killed")
            else:
                self._ask(group)

    def _look(self) -> Look:
        upstream = self._upstream
        look = Look(time.monotonic(), upstream.pieces, upstream.expected, upstream.unread)
        if self._progress.quiet < min(progress.LOOKED_AFTER, self._progress.limits.stopped):
            return look  # the usual case costs nothing
        seen = self._meter.read(self._pids())
        return look._replace(stopped=seen.stopped, computing=seen.computing)

    def _ask(self, group: anyio.abc.TaskGroup) -> None:
        """For one token, unless one is being asked for; that this is a request, too, lets _look_when_busy judge it."""
        if not self._asking and not self._upstream.asleep:
            self._asking = True
            group.start_soon(self._ask_one)

    async def _ask_one(self) -> None:
        try:
            for _ in range(ERRORS):
                answer = await probe.one_token(self._upstream)
                if answer is Answer.TOKEN:
                    self._progress.answered()
                    return
                await anyio.sleep(self._pace.again)
                if self._upstream.asleep:  # it was sent to sleep meanwhile: no wonder
                    return
            self._end("answers nothing but errors and was killed")
        finally:
            self._asking = False

    def _end(self, why: str) -> None:
        self._sick = self._sick or why
        self._over.set()
