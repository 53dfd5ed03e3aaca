"""An engine's answer given to an Ollama client: streamed line by line, or whole.

Owns the order of events (first block, next blocks, last line or error line) and the counters of the last line.  Knows
nothing of the request but its form (`Lines`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from quart import Response

from hyperllamad.front import ollama_lines, replies
from hyperllamad.front.continuation import Stream
from hyperllamad.front.ollama_lines import Collected, Counters, End, Lines
from hyperllamad.front.request_scope import Record, record
from hyperllamad.front.stream_body import StreamBody, broken_off

ContextOf = Callable[[str], Awaitable[list[int]]]  # the answer's text -> token ids of prompt and answer

# Ollama knows two reasons; a tool call is a stop to it.
_REASONS = {"length": "length"}


async def stream(engine: Stream, lines: Lines, granted: int, context_of: ContextOf | None) -> Response:
    """A response of lines.  Raises HyperLlamaError as long as nothing was sent: that is still a proper HTTP error."""
    answer = _Answer(engine, lines, granted, context_of)
    body = StreamBody(await answer.block(), answer.block_or_error, answer.failed)
    await body.begin()
    # RESPONSE_TIMEOUT is off for the whole app: a stream ends when it ends.
    return Response(body, content_type=replies.NDJSON)


async def whole(engine: Stream, lines: Lines, granted: int, context_of: ContextOf | None) -> Response:
    """A response that is one object; raises HyperLlamaError."""
    collected, seen = Collected(lines.alternatives), _Progress(engine, granted)
    while chunks := await engine.read():
        if collected.add(chunks):
            seen.tokens(len(chunks))
    context = await context_of("".join(collected.text)) if context_of else []
    return replies.json(lines.whole(collected, seen.end(context)))


class _Progress:
    """Counts and times of one answer; perf_counter_ns."""

    def __init__(self, engine: Stream, granted: int) -> None:
        self._engine = engine
        self._granted = granted
        self.record: Record = record()

    def tokens(self, events: int) -> None:
        """Something to show came, in that many events: about as many tokens, until the engine says how many."""
        if not self.record.first_token:
            self.record.first_token = time.perf_counter_ns()
        self.record.completion_tokens += events

    def end(self, context: list[int]) -> End:
        """The engine's own figures where it gives them, else what was seen from here."""
        told, engine, now = self.record, self._engine, time.perf_counter_ns()
        usage, timings, metrics = engine.usage, engine.timings, engine.metrics
        told.prompt_tokens = usage.prompt_tokens or 0
        told.completion_tokens = usage.completion_tokens or told.completion_tokens
        first = told.first_token or now
        prompt_ms = timings.prompt_ms if timings else metrics.time_to_first_token_ms if metrics else None
        if metrics and prompt_ms and metrics.queue_time_ms:
            prompt_ms -= metrics.queue_time_ms
        eval_ms = timings.predicted_ms if timings else metrics.generation_time_ms if metrics else None
        counters: Counters = {
            "total_duration": now - told.arrived,
            "load_duration": self._granted - told.arrived,
            "prompt_eval_count": told.prompt_tokens,
            "prompt_eval_duration": first - engine.asked if prompt_ms is None else int(prompt_ms * 1e6),
            "eval_count": told.completion_tokens,
            "eval_duration": now - first if eval_ms is None else int(eval_ms * 1e6),
        }
        return End(_REASONS.get(engine.finish_reason, "stop"), context, counters)


class _Answer:
    """A stream in the making."""

    def __init__(self, engine: Stream, lines: Lines, granted: int, context_of: ContextOf | None) -> None:
        self._engine = engine
        self._lines = lines
        self._context_of = context_of
        self._progress = _Progress(engine, granted)
        self._ended = False
        lines.keep_text = context_of is not None

    async def block(self) -> bytes:
        """All lines that can be written now, b"" when there are no more; raises HyperLlamaError."""
        while not self._ended:
            chunks = await self._engine.read()
            if not chunks:
                self._ended = True
                context = await self._context_of("".join(self._lines.said)) if self._context_of else []
                return self._lines.last(self._progress.end(context))
            if block := self._lines.tokens(chunks):
                self._progress.tokens(len(chunks))
                return block
        return b""

    async def block_or_error(self) -> bytes:
        """Like `block`, but a failure is the last line: the status has been sent."""
        try:
            return await self.block()
        except Exception as failure:  # noqa: BLE001  # told and logged there
            return self.failed(failure)

    def failed(self, failure: Exception) -> bytes:
        """The last line of a stream that ends so."""
        text, _ = broken_off(failure, self._progress.record)
        self._ended = True
        return ollama_lines.error_line(text)
