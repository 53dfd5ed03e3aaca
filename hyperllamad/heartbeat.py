"""What systemd hears of us all the while: that we are alive and on time, that a start or end takes longer, how we are.

The watchdog is fed only when decisions are being made: a ping goes out after the event loop has run this task and the
supervisor's clock has gone round because of it, so that a clock that is stuck silences it as a blocked loop does.  Must
not know what any state means.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import anyio

from hyperllamad.core.instance import State
from hyperllamad.notifier import Notifier
from hyperllamad.supervision.broadcast import Watch
from hyperllamad.supervision.rows import Change

EXTENSION = 15.0  # seconds that a start or an end may still take, each time we say so
SAID_EVERY = 5.0  # seconds between two such words


class Supervised(Protocol):
    """What is asked of the supervisor."""

    async def pulse(self) -> None: ...
    def census(self) -> Mapping[State, int]: ...
    def watch(self) -> Watch[Change]: ...


async def beat(notifier: Notifier, supervisor: Supervised) -> None:
    """Feed the watchdog for ever, three times as often as it wants it; returns when there is none."""
    if not notifier.watchdog:
        return
    while True:
        await supervisor.pulse()
        notifier.alive()
        await anyio.sleep(notifier.watchdog / 3)


@asynccontextmanager
async def patience(notifier: Notifier) -> AsyncIterator[None]:
    """While the block lasts, systemd's time for a start or a stop does not run out."""
    if not notifier.heard:
        yield
        return
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_extend, notifier)
        yield
        tasks.cancel_scope.cancel()


async def _extend(notifier: Notifier) -> None:
    while True:
        notifier.extend(EXTENSION)
        await anyio.sleep(SAID_EVERY)


async def tell_status(notifier: Notifier, supervisor: Supervised, what: Callable[[], str]) -> None:
    """Keep the line of `systemctl status` true: `what` we do and how many models are in which state; ends with it."""
    if not notifier.heard:
        return
    said = ""
    while True:
        with supervisor.watch() as changes, contextlib.suppress(StopAsyncIteration):
            while True:  # first, too: what came about before we watched, or while we were too far behind to be told
                line = sentence(what(), supervisor.census())
                if line != said:
                    notifier.status(line)
                    said = line
                await anext(changes)
        await anyio.sleep(SAID_EVERY)


def sentence(what: str, census: Mapping[State, int]) -> str:
    """`serving http://127.0.0.1:11434: 2 models ready, 1 starting`."""
    counts = Counter({state: count for state, count in census.items() if count})
    parts = [f"{counts[state]} {state}" for state in State if counts[state]]
    if not parts:
        return f"{what}: no model loaded"
    first, *rest = parts
    number, _, state = first.partition(" ")
    return f"{what}: " + ", ".join([f"{number} {'model' if number == '1' else 'models'} {state}", *rest])
