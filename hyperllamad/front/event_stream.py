"""An engine's answers told to a client as server-sent events, or gathered whole.  Knows the order, not the words.

The words are a dialect's: `Telling`.  A failure after the first byte becomes the last event; before it, it is raised
and becomes a proper HTTP error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import MappingProxyType
from typing import Protocol

from quart import Response

from hyperllamad.front import replies
from hyperllamad.front.answers import Answers, Gathered, Tokens
from hyperllamad.front.engine_wire import Chunk
from hyperllamad.front.request_scope import Record, record
from hyperllamad.front.stream_body import StreamBody, broken_off

NOT_KEPT = MappingProxyType({"Cache-Control": "no-cache"})  # what `one` says beside the type


class Telling(Protocol):
    """One response in the making; every method gives whole events, or b""."""

    def begin(self) -> bytes:
        """What comes first; only sent when there is something to come after it."""

    def tokens(self, which: int, chunks: Sequence[Chunk]) -> bytes: ...
    def finish(self, which: int, reason: str) -> bytes:
        """One of the answers is finished, for the engine's `reason`."""

    def end(self, tokens: Tokens) -> bytes: ...
    def failure(self, text: str, status: int) -> bytes:
        """How it ends when it cannot go on."""


class TellingOne(Telling, Protocol):
    """The same where there is always one answer."""

    def whole(self, gathered: Gathered, reason: str, tokens: Tokens) -> bytes: ...


async def one(answers: Answers, telling: TellingOne, *, streamed: bool) -> Response:
    """The only answer, as events or whole; raises HyperLlamaError as long as nothing was sent."""
    if streamed:
        response = await stream(answers, telling)
        response.headers.update(NOT_KEPT)
        return response
    (gathered,), tokens = await gather(answers, 1)
    body = telling.whole(gathered, answers.finish_reason(0), tokens)
    return replies.json(body, content_type=replies.BARE_JSON)


async def stream(answers: Answers, telling: Telling) -> Response:
    """A response of events; raises HyperLlamaError as long as nothing was sent."""
    told = _Told(answers, telling)
    body = StreamBody(telling.begin() + await told.block(), told.block_or_error, told.failed)
    await body.begin()
    return Response(body, content_type=replies.EVENTS)


async def gather(answers: Answers, count: int) -> tuple[list[Gathered], Tokens]:
    """The `count` answers whole, and what they took; raises HyperLlamaError."""
    gathered = [Gathered() for _ in range(count)]
    told = record()
    while answers.open:
        which, chunks = await answers.read()
        gathered[which].add(chunks)
        _note(told, len(chunks))
    return gathered, _counted(told, answers)


def _note(told: Record, events: int) -> None:
    """Something came, in that many events: about as many tokens, until the engine says how many."""
    if events and not told.first_token:
        told.first_token = time.perf_counter_ns()
    told.completion_tokens += events


def _counted(told: Record, answers: Answers) -> Tokens:
    tokens = answers.tokens(told.completion_tokens)
    told.prompt_tokens, told.completion_tokens = tokens.prompt, tokens.completion
    return tokens


class _Told:
    """A stream in the making."""

    def __init__(self, answers: Answers, telling: Telling) -> None:
        self._answers = answers
        self._telling = telling
        self._record = record()
        self._ended = False

    async def block(self) -> bytes:
        """All events that can be written now, b"" when there are no more; raises HyperLlamaError."""
        answers, telling = self._answers, self._telling
        while not self._ended:
            which, chunks = await answers.read()
            if chunks:
                if block := telling.tokens(which, chunks):
                    _note(self._record, len(chunks))
                    return block
                continue
            block = telling.finish(which, answers.finish_reason(which))
            if not answers.open:
                self._ended = True
                block += telling.end(_counted(self._record, answers))
            if block:
                return block
        return b""

    async def block_or_error(self) -> bytes:
        """Like `block`, but a failure is the last event: the status has been sent."""
        try:
            return await self.block()
        except Exception as failure:  # noqa: BLE001  # told and logged there
            return self.failed(failure)

    def failed(self, failure: Exception) -> bytes:
        """The last event of a stream that ends so."""
        text, status = broken_off(failure, self._record)
        self._ended = True
        self._answers.close()
        return self._telling.failure(text, status)
