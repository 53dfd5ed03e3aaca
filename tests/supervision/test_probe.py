"""Ready, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from hyperllamad.supervision import probe
from hyperllamad.supervision.probe import Pace

PACE = Pace(first=0.01, slowest=0.02, health=0.01, answer=0.1)
OK, LOADING, SILENT, GARBAGE = 200, 503, 0, -1


@asynccontextmanager
async def server(socket: Path, answer: Callable[[], int]) -> AsyncIterator[None]:
    """Answers each request with the status that `answer` gives then, or with one of the vices above."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = answer()
        if status == SILENT:
            await reader.read()
        elif status == GARBAGE:
            writer.write(b"\0\1\2 what?\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
        writer.close()

    async with await asyncio.start_unix_server(connection, socket):
        yield


async def test_ready_is_the_first_200(runtime: Path) -> None:
    """No socket, then nobody listening, then 503, garbage, silence: not ready, and asked again."""
    answers = [LOADING, GARBAGE, SILENT, LOADING, OK]
    given: list[int] = []

    def answer() -> int:
        given.append(answers[len(given)])
        return given[-1]

    socket = runtime / "e.sock"
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(probe.wait_ready, str(socket), "/health", PACE)
            await anyio.sleep(0.03)
            async with server(socket, answer):
                while len(given) < len(answers):
                    await anyio.sleep(0.005)
    assert given == answers


async def test_waiting_ends_with_its_scope(runtime: Path) -> None:
    with anyio.move_on_after(0.05) as scope:
        await probe.wait_ready(str(runtime / "e.sock"), "/health", PACE)
    assert scope.cancelled_caught


@pytest.mark.parametrize("name", ["first", "slowest", "health", "answer", "busy", "idle"])
def test_the_normal_pace_is_gentle(name: str) -> None:
    """Load: every 0.1 to 0.5 s; afterwards every second while it is asked, else every 15 s; a token in ten minutes."""
    stated = {"first": 0.1, "slowest": 0.5, "health": 15.0, "answer": 10.0, "busy": 1.0, "idle": 600.0}
    assert getattr(probe.NORMAL, name) == stated[name]
