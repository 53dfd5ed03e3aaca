"""Questions to an engine over its socket: is it ready, is it well, can it make one token?

Must not know what follows from the answers.
"""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass
from typing import Any

import aiohttp
import anyio
import msgspec

from hyperllamad.core import progress
from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.models import Kind, Model
from hyperllamad.core.progress import Limits
from hyperllamad.engines import bodies
from hyperllamad.supervision.upstream import BASE, Connector, Upstream, open_session


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between questions, and for an answer."""

    first: float = 0.1
    slowest: float = 0.5
    health: float = 15.0  # between looks at an idle engine
    answer: float = 10.0
    busy: float = 1.0  # between looks at one that is asked
    idle: float = 600.0  # without a request, after which one token is asked for
    again: float = 2.0  # before an engine is asked once more that answered with an error
    limits: Limits = progress.NORMAL


NORMAL = Pace()


class Answer(enum.Enum):
    """What came of asking for one token."""

    TOKEN = enum.auto()  # or a refusal in good order: it is at work
    ERROR = enum.auto()
    NONE = enum.auto()  # it cannot be asked, or hung up


async def wait_ready(socket: str, path: str, pace: Pace) -> None:
    """Until the engine answers GET `path` with 200 for the first time."""
    pause = pace.first
    async with open_session(Connector(socket)) as session:
        while not await is_well(session, path, pace.answer):
            await anyio.sleep(pause)
            pause = min(1.25 * pause, pace.slowest)


async def is_well(session: aiohttp.ClientSession, path: str, patience: float) -> bool:
    """Whether the engine answers GET `path` with 200 in that many seconds."""
    try:
        async with session.get(BASE + path, timeout=aiohttp.ClientTimeout(total=patience)) as reply:
            return reply.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def _least(model: Model) -> tuple[Kind, dict[str, Any]]:
    """The least that can be asked of a model."""
    if bodies.ranks(model):
        return Kind.RERANK, {"query": "1", "documents": ["1"]}
    if bodies.embeds(model):
        return Kind.EMBED, {"input": "1"}
    return Kind.COMPLETION, {"prompt": "1", "max_tokens": 1, "temperature": 0.0}


async def one_token(upstream: Upstream) -> Answer:
    """Ask for a single token, however long it takes; it counts as a request like any other."""
    kind, asked = _least(upstream.model)
    try:
        body = upstream.engine.body(kind, asked, upstream.model, upstream.settings) | {"model": upstream.name}
    except HyperLlamaError:
        return Answer.TOKEN
    payload = msgspec.json.encode(body)
    work = upstream.begin(len(payload))
    work.waiting = True
    try:
        with contextlib.closing(await upstream.post(kind.value, payload)) as reply:
            await reply.read()
            return Answer.ERROR if reply.status >= 500 else Answer.TOKEN
    except (aiohttp.ClientError, OSError):
        return Answer.NONE
    finally:
        work.end()
