"""The answer to a command that takes time: a stream of lines, written by a handler that is a task of its own.

The handler starts when Quart begins to send the body and is cancelled when that ends, for whatever reason; so what a
handler holds (a lease, an install) it holds as a plain coroutine does, and leaving it gives it back.  Owns the rule
that the last line is the command's reply or Failed; knows no command.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectSendStream
from quart.wrappers.response import ResponseBody

from hyperllamactl.protocol.base import Failed, Progress, Reply
from hyperllamad.core.errors import HyperLlamaError

log = logging.getLogger("hyperllamad.control")

encode = msgspec.json.Encoder().encode


def line(reply: Reply) -> bytes:
    """One line of NDJSON."""
    return encode(reply) + b"\n"


def failed(failure: HyperLlamaError) -> Failed:
    return Failed(code=failure.code, message=failure.message, hint=failure.hint)


def unexpected(failure: Exception, name: str) -> Failed:
    """Our own error: the log gets the trace, the client a sentence."""
    log.error("the command '%s' failed unexpectedly", name, exc_info=failure)
    message = f"'{name}' failed inside hyperllamad: {type(failure).__name__}: {failure}"
    return Failed(code=HyperLlamaError.code, message=message, hint="its log has the details; please report it")


class Teller:
    """A handler's way to its client."""

    def __init__(self, lines: MemoryObjectSendStream[Reply]) -> None:
        self._lines = lines
        self._started = time.monotonic()

    async def tell(self, reply: Reply) -> None:
        """Send a line; waits while the client is slow.  A Progress gets the time since the command began."""
        if isinstance(reply, Progress):
            reply.elapsed = round(time.monotonic() - self._started, 3)
        await self._lines.send(reply)


class Answer(ResponseBody):
    """The body of a response: what `handler` tells, then what it returns, or Failed for what it raises."""

    def __init__(self, name: str, handler: Callable[[Teller], Awaitable[Reply]]) -> None:
        self._name = name
        self._handler = handler
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Self:
        # No buffer: a handler is never further than one line ahead of its client.
        send, receive = anyio.create_memory_object_stream[Reply](0)
        self._lines = await self._held.enter_async_context(receive)
        await self._held.enter_async_context(send)  # the handler closes it, but may be cancelled before it begins
        tasks = await self._held.enter_async_context(anyio.create_task_group())
        tasks.start_soon(self._run, send)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._held.__aexit__(exc_type, exc_value, tb)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return line(await self._lines.__anext__())

    async def _run(self, send: MemoryObjectSendStream[Reply]) -> None:
        async with send:
            try:
                last = await self._handler(Teller(send))
            except HyperLlamaError as failure:
                last = failed(failure)
            except Exception as failure:  # noqa: BLE001  the client must hear of it, whatever it was
                last = unexpected(failure, self._name)
            await send.send(last)
