"""pauses.py: a timer between two requests, and a task only when it was too long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import anyio
import anyio.lowlevel

from hyperllamad.pauses import Pause, Pauses


class Late:
    """What is done when a pause was too long; counts how often it has begun and ended."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.came = anyio.Event()

    async def __call__(self) -> None:
        self.begun += 1
        self.came.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.ended += 1


async def test_a_pause_that_ends_in_time_was_no_task() -> None:
    late = Late()
    async with asyncio.TaskGroup() as group:
        pauses = Pauses(asyncio.get_running_loop(), 3600)
        pause, before = Pause(pauses), asyncio.all_tasks()
        for _ in range(3):
            await pause.restart(cast("Any", SimpleNamespace(_task_group=group)), late)
            assert (pauses.under_way, asyncio.all_tasks()) == ({pause}, before)
            await pause.stop()
            assert pauses.under_way == set()
    assert late.begun == 0


async def test_one_that_was_too_long_is_ended_with_what_it_began() -> None:
    late = Late()
    async with asyncio.TaskGroup() as group:
        pauses = Pauses(asyncio.get_running_loop(), 0)
        pause = Pause(pauses)
        for times in (1, 2):
            await pause.restart(cast("Any", SimpleNamespace(_task_group=group)), late)
            with anyio.fail_after(20):
                await late.came.wait()
            late.came = anyio.Event()
            assert pauses.under_way == set()
            await pause.stop()
            assert (late.begun, late.ended) == (times, times)


async def test_all_can_be_hastened_those_to_come_too() -> None:
    first, second = Late(), Late()
    async with asyncio.TaskGroup() as group:
        pauses = Pauses(asyncio.get_running_loop(), 3600)
        early, later = Pause(pauses), Pause(pauses)
        tasks = cast("Any", SimpleNamespace(_task_group=group))
        await early.restart(tasks, first)
        pauses.hasten(0)
        await later.restart(tasks, second)
        with anyio.fail_after(20):
            await first.came.wait()
            await second.came.wait()
        await early.stop()
        await later.stop()
    assert (first.ended, second.ended) == (1, 1)


async def test_who_is_ended_while_a_pause_stops_is_ended() -> None:
    """What was begun may take its time to end; it does not swallow the end of who waits for it."""
    go = anyio.Event()
    async with asyncio.TaskGroup() as group:

        async def stubborn() -> None:
            with anyio.CancelScope(shield=True):
                await go.wait()

        pause = Pause(Pauses(asyncio.get_running_loop(), 0))
        await pause.restart(cast("Any", SimpleNamespace(_task_group=group)), stubborn)
        while not pause._task:
            await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        stopping = asyncio.ensure_future(pause.stop())
        await anyio.lowlevel.checkpoint()
        stopping.cancel()
        await asyncio.wait([stopping])
        assert stopping.cancelled()
        go.set()


async def test_a_connection_that_ends_anyway_begins_nothing() -> None:
    late = Late()
    pause = Pause(Pauses(asyncio.get_running_loop(), 0))
    async with asyncio.TaskGroup() as group:
        await pause.restart(cast("Any", SimpleNamespace(_task_group=group)), late)
    while pause._pauses.under_way:  # it is over only now, and so is the group
        await anyio.lowlevel.checkpoint()
    assert (late.begun, pause._task) == (0, None)
    await pause.stop()
