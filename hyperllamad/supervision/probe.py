"""Is the engine ready, is it still well?  Asks over its socket; must not know what follows from the answers."""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp
import anyio

from hyperllamad.supervision.upstream import Connector, open_session


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between questions and for an answer; how many unanswered ones in a row make it sick."""

    first: float = 0.1
    slowest: float = 0.5
    health: float = 15.0
    answer: float = 10.0
    failures: int = 3


NORMAL = Pace()


async def wait_ready(socket: str, path: str, pace: Pace) -> None:
    """Until the engine answers GET `path` with 200 for the first time."""
    pause = pace.first
    async with open_session(Connector(socket)) as session:
        while not await _is_well(session, path, pace.answer):
            await anyio.sleep(pause)
            pause = min(1.25 * pause, pace.slowest)


async def wait_sick(socket: str, path: str, pace: Pace) -> None:
    """Until the engine has failed to answer GET `path` with 200 several times in a row."""
    failures = 0
    async with open_session(Connector(socket)) as session:
        while failures < pace.failures:
            await anyio.sleep(pace.health)
            failures = 0 if await _is_well(session, path, pace.answer) else failures + 1


async def _is_well(session: aiohttp.ClientSession, path: str, patience: float) -> bool:
    try:
        async with session.get(path, timeout=aiohttp.ClientTimeout(total=patience)) as reply:
            return reply.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
