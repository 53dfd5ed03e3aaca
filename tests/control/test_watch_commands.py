"""The commands logs and watch: what was, what comes, and when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from hyperllamactl.protocol.base import Done
from hyperllamactl.protocol.instances import Change, LogLine, Logs, Watch
from hyperllamad.core.instance import State
from hyperllamad.supervision.logs import Ring
from tests.control.conftest import SMOL, Door

NAME = "smollm2:135m"


@pytest.fixture
def ring(door: Door) -> Ring:
    ring = door.supervisor.rings[SMOL.name.key] = Ring()
    for number in range(5):
        ring.append(f"line {number}")
    return ring


@pytest.mark.usefixtures("ring")
@pytest.mark.parametrize(("lines", "first"), [(2, 3), (5, 0), (100, 0), (0, 5), (-1, 5)])
async def test_logs_are_the_last_lines(lines: int, first: int, door: Door) -> None:
    answer = await door.call(Logs(model=NAME, lines=lines))
    *told, last = answer.lines
    assert [line.text for line in told if isinstance(line, LogLine)] == [f"line {n}" for n in range(first, 5)]
    assert last == Done()


async def test_logs_are_followed_until_the_engine_ends(door: Door, ring: Ring) -> None:
    async with door.stream(Logs(model=NAME, lines=1, follow=True)) as next_line:
        assert (await next_line()).text == "line 4"
        ring.append("and another")
        assert (await next_line()).text == "and another"
        ring.end()
        assert await next_line() == Done(message="the engine has ended")


async def test_who_hangs_up_is_not_followed_for(door: Door, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    follow, left = ring.follow, anyio.Event()

    @contextmanager
    def noticed_follow() -> Iterator[Any]:
        try:
            with follow() as coming:
                yield coming
        finally:
            left.set()

    monkeypatch.setattr(ring, "follow", noticed_follow)
    async with door.stream(Logs(model=NAME, lines=1, follow=True)) as next_line:
        await next_line()
        assert not left.is_set()
    with anyio.fail_after(5):
        await left.wait()


async def test_watch_tells_every_change(door: Door) -> None:
    async with door.stream(Watch()) as next_line:
        door.supervisor.show(SMOL, State.STARTING, phase="weights")
        door.supervisor.show(SMOL, State.FAILED, cause="no memory")
        assert await next_line() == Change(at=5000.0, name=NAME, state="starting", phase="weights")
        assert await next_line() == Change(at=5000.0, name=NAME, state="failed", detail="no memory")
        door.supervisor.close()
        assert isinstance(await next_line(), Done)
