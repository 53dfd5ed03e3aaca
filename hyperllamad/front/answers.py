"""The answers to one request: usually one, several when a client asks for `n`.  Knows streams of chunks, no dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from hyperllamad.core.models import Kind
from hyperllamad.front import continuation, engine_wire, fitting
from hyperllamad.front.continuation import Stream
from hyperllamad.front.engine_wire import Chunk, Logprobs
from hyperllamad.front.ports import Upstream
from hyperllamad.front.request_scope import held
from hyperllamad.front.tool_calls import ToolCalls


@dataclass(frozen=True, slots=True)
class Tokens:
    """How many were read and written; `cached` of those read were known from before."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


async def ask(upstream: Upstream, kind: Kind, bodies: Sequence[dict[str, Any]]) -> Answers:
    """Begin an answer to each body, all at the same time; the current request holds them.  Raises HyperLlamaError.

    A chat that is too long loses its oldest messages, see `fitting`.
    """
    stack = held()

    async def begin(body: dict[str, Any]) -> Stream:
        return await continuation.ask(upstream, kind, body, stack)

    if len(bodies) == 1:
        return Answers([await fitting.ask(upstream, bodies[0], begin)])
    streams: dict[int, Stream] = {}

    async def one(which: int) -> None:
        streams[which] = await fitting.ask(upstream, bodies[which], begin)

    try:
        async with anyio.create_task_group() as group:
            for which in range(len(bodies)):
                group.start_soon(one, which)
    except ExceptionGroup as several:  # each failed for the same reason, or the first one ended the others
        raise _first(several) from None
    answers = Answers([streams[which] for which in range(len(bodies))])
    stack.callback(answers.close)
    return answers


def _first(group: ExceptionGroup[Exception]) -> Exception:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, ExceptionGroup) else found


class Answers:
    """Several streams read as one."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams
        self._reading: dict[asyncio.Task[list[Chunk]], int] = {}
        self._begun = False
        self.open = len(streams)  # how many have not ended

    async def read(self) -> tuple[int, list[Chunk]]:
        """(which answer, the chunks of it that arrived together); no chunks when that answer is finished.

        Must not be called when none is open.  Raises what EngineStream.read raises.
        """
        which, chunks = (0, await self._streams[0].read()) if len(self._streams) == 1 else await self._next()
        if not chunks:
            self.open -= 1
        return which, chunks

    async def _next(self) -> tuple[int, list[Chunk]]:
        if not self._begun:
            self._begun = True
            for which in range(len(self._streams)):
                self._start(which)
        done, _ = await asyncio.wait(self._reading, return_when=asyncio.FIRST_COMPLETED)
        task = min(done, key=self._reading.__getitem__)
        which = self._reading.pop(task)
        if chunks := task.result():
            self._start(which)
        return which, chunks

    def _start(self, which: int) -> None:
        task = asyncio.create_task(self._streams[which].read())
        task.add_done_callback(_looked_at)
        self._reading[task] = which

    def close(self) -> None:
        """Stop reading; nothing is waited for, because the engine's responses close by themselves."""
        for task in self._reading:
            task.cancel()

    def finish_reason(self, which: int) -> str:
        return self._streams[which].finish_reason

    def tokens(self, seen: int) -> Tokens:
        """What the engine counted: the prompt once, however many answers it has; `seen` where it counted nothing."""
        usages = [stream.usage for stream in self._streams]
        written = sum(usage.completion_tokens or 0 for usage in usages)
        first = usages[0]
        details = first.prompt_tokens_details
        cached = (details.cached_tokens or 0) if details is not None else 0
        return Tokens(first.prompt_tokens or 0, written or seen, cached)


def _looked_at(task: asyncio.Task[list[Chunk]]) -> None:
    """A read that failed while another failure was told must not be reported as forgotten."""
    if not task.cancelled():
        task.exception()


@dataclass(slots=True)
class Gathered:
    """One answer, collected for a client that wants it whole."""

    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    logprobs: list[tuple[str, Logprobs]] = field(default_factory=list)  # each with the text it belongs to
    calls: ToolCalls = field(default_factory=ToolCalls)

    def add(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            for choice in chunk.choices[:1]:
                text, thinking, pieces = engine_wire.parts(choice)
                if text:
                    self.text.append(text)
                if thinking:
                    self.thinking.append(thinking)
                if pieces:
                    self.calls.add(pieces)
                if choice.logprobs is not None:
                    self.logprobs.append((text or "", choice.logprobs))
