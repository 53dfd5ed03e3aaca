"""Many who want one model watch one download; it ends with the last of them, and with the daemon."""

from __future__ import annotations

from threading import Semaphore

import anyio
import pytest

from hyperllamad.core.errors import ClosingError, PullFailedError
from hyperllamad.store.steps import Step
from tests.store.hub import Hub
from tests.store.pulling import MIB, NAME, Open, big_gguf, wait_until


async def test_twenty_watchers_one_download(hub: Hub, opened: Open) -> None:
    content = big_gguf()
    hub.put("org/repo", {"m.gguf": content, "LICENSE": b"free"})
    gate = hub.gates["m.gguf"] = Semaphore(0)
    seen: list[list[Step]] = [[] for _ in range(20)]
    cancelled = 0
    async with opened() as store, anyio.create_task_group() as tasks:

        async def watch(number: int, scope: anyio.CancelScope) -> None:
            nonlocal cancelled
            with scope, await store.library.pull(NAME) as watch:
                async for step in watch:
                    seen[number].append(step)
            cancelled += scope.cancelled_caught

        scopes = [anyio.CancelScope() for _ in range(20)]
        for number, scope in enumerate(scopes):
            tasks.start_soon(watch, number, scope)
        gate.release(10)
        await wait_until(lambda: all(len(steps) > 1 for steps in seen))
        for count in range(10, 20):
            before = len(seen[0])
            scopes[count].cancel()
            gate.release(5)
            await wait_until(lambda before=before: len(seen[0]) > before)
        for scope in scopes[1:]:
            scope.cancel()
        gate.release(1000)
        await wait_until(lambda: bool(seen[0]) and seen[0][-1].status == "success")
        assert store.listed() == ["hf.co/org/repo:latest"]
    assert cancelled == 19
    assert hub.ranges == {"m.gguf": [0], "LICENSE": [0]}
    assert hub.served["m.gguf"] == len(content)
    assert all(steps[0].status == "pulling manifest" and steps[1].digest for steps in seen)


async def test_the_last_to_leave_ends_it(hub: Hub, opened: Open) -> None:
    content = big_gguf()
    hub.put("org/repo", {"m.gguf": content})
    gate = hub.gates["m.gguf"] = Semaphore(40)
    async with opened() as store:
        first, second = await store.library.pull(NAME), await store.library.pull(NAME)
        first.leave()
        first.leave()
        async for step in second:
            if step.completed > 0:
                break
        await wait_until(lambda: store.kept() >= 2 * MIB)
        second.leave()
        kept = 0

        async def release() -> None:
            nonlocal kept
            await wait_until(lambda: len(hub.ranges["m.gguf"]) == 2)
            kept = store.kept()
            gate.release(1000)

        # Who comes at once goes on with what there is.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(release)
            assert (await store.pull())[-1].status == "success"
        assert hub.ranges["m.gguf"] == [0, kept]
        assert kept >= 2 * MIB


async def test_at_the_end_of_the_daemon(hub: Hub, opened: Open) -> None:
    hub.put("org/repo", {"m.gguf": big_gguf()})
    hub.gates["m.gguf"] = Semaphore(5)
    async with opened() as store:
        watch = await store.library.pull(NAME)
        steps = aiter(watch)
        await anext(steps)
    with pytest.raises(PullFailedError, match="cut off"):
        async for _ in steps:
            pass
    watch.leave()
    with pytest.raises(ClosingError):
        await store.library.pull(NAME)
