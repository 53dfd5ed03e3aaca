"""An answer that outlives its engine: when one dies in the middle, another goes on where it stopped.

The dialects read a `Continued` like any engine's stream and never learn of it.  resumable.py knows what can be
continued; here it is done: another lease, the prompt and what was said as token ids, and the counts put together.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Union

from hyperllamad.core.errors import CutShortError, EngineDiedError, HyperLlamaError
from hyperllamad.core.models import Kind
from hyperllamad.engines import bodies
from hyperllamad.front import engine_wire, relay, rendering, resumable
from hyperllamad.front.engine_wire import Chunk, Delta
from hyperllamad.front.ports import Upstream
from hyperllamad.front.relay import EngineStream
from hyperllamad.front.request_scope import record
from hyperllamad.front.resumable import Seen
from hyperllamad.telemetry import fields

log = logging.getLogger(__name__)

Another = Callable[[], Awaitable[Upstream]]
Stream = Union["EngineStream", "Continued"]  # what the dialects read
MOST = 3  # engines an answer may outlive; one that kills each of them must come to an end


async def ask(upstream: Upstream, kind: Kind, body: dict[str, Any], held: AsyncExitStack) -> Stream:
    """Like relay.ask; the answer is continued if it breaks off, where the configuration and the request allow it."""
    another = record().another
    if another is None:
        return await relay.ask(upstream, kind, body, held)
    asked = Asked(kind, body, held, another, resumable.refusal(kind, body) or _silence(upstream, kind))
    if asked.why_not:
        return Continued(await relay.ask(upstream, kind, body, held), asked, Seen())
    seen = Seen()
    return Continued(await relay.ask(upstream, kind, _with_ids(upstream, body), held, seen=seen), asked, seen)


def _silence(upstream: Upstream, kind: Kind) -> str:
    """Why the tokens of an answer cannot be known, as a clause; "" when they can."""
    probe = upstream.engine.probe
    told = probe.token_ids or ("tokenize" in probe.extra and (kind is not Kind.CHAT or "apply_template" in probe.extra))
    return "" if told else f"{upstream.engine.title} does not tell tokens"


def _with_ids(upstream: Upstream, body: dict[str, Any]) -> dict[str, Any]:
    return body | {"return_token_ids": True} if upstream.engine.probe.token_ids else body


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an answer, and all that is needed to ask again."""

    kind: Kind
    body: dict[str, Any]
    held: AsyncExitStack
    another: Another
    why_not: str  # it cannot be continued; "" = it can


class Continued:
    """The stream of an answer, whichever engines it comes from; to be read like an EngineStream."""

    def __init__(self, stream: EngineStream, asked: Asked, seen: Seen) -> None:
        self.asked = stream.asked  # perf_counter_ns
        self._stream = stream
        self._request = asked
        self._seen = seen
        self._said: list[int] = []  # of all engines before the present one
        self._prompt: list[int] | None = None
        self._deaths = 0
        self._begun = False  # the present engine has sent something
        self._full = False

    async def read(self) -> list[Chunk]:
        """See EngineStream.read."""
        while not self._full:
            try:
                chunks = await self._stream.read()
            except EngineDiedError as died:
                await self._go_on(died)
                continue
            self._begun = True
            return chunks
        return []

    # -- what the engines said of the whole ------------------------------------------------------------------------

    @property
    def upstream(self) -> Upstream:
        return self._stream.upstream

    @property
    def finish_reason(self) -> str:
        return "length" if self._full else self._stream.finish_reason

    @property
    def usage(self) -> engine_wire.Usage:
        """Of the request as it was asked: what the last engine took for its prompt was mostly answer."""
        usage, said = self._stream.usage, len(self._said)
        if not said:
            return usage
        prompt = (usage.prompt_tokens or 0) - said if usage.prompt_tokens else len(self._prompt or ())
        return engine_wire.Usage(prompt, (usage.completion_tokens or 0) + said, usage.prompt_tokens_details)

    @property
    def timings(self) -> engine_wire.Timings | None:
        """Only of an engine that did it all."""
        return None if self._deaths else self._stream.timings

    @property
    def metrics(self) -> engine_wire.RequestMetrics | None:
        return None if self._deaths else self._stream.metrics

    # -- going on --------------------------------------------------------------------------------------------------

    async def _go_on(self, died: EngineDiedError) -> None:
        """Another engine takes over, or `died` is raised, with the reason why it had to be."""
        self._check(died)
        self._deaths += 1
        self._begun = False
        old = self._stream.upstream
        try:
            upstream = await self._request.another()
            if (upstream.engine.name, upstream.model.digest) != (old.engine.name, old.model.digest):
                raise _not_continued(died, "the model runs on another engine now")
            await self._ask(upstream, died)
        except EngineDiedError:
            raise
        except HyperLlamaError as failure:
            raise _not_continued(died, str(failure)) from failure
        told = fields(model=old.model.name.short, tokens=len(self._said))
        log.info("an answer goes on on another engine", extra=told)

    def _check(self, died: EngineDiedError) -> None:
        if isinstance(died, CutShortError) or not (self._begun or self._deaths):
            raise died  # ended on purpose; or nobody has seen anything of it, and it is asked again as a whole
        if not self._begun or self._deaths == MOST:
            raise _not_continued(died, "it has cost several engines already")
        if why_not := self._request.why_not or self._seen.more:
            raise _not_continued(died, why_not)

    async def _ask(self, upstream: Upstream, died: EngineDiedError) -> None:
        said = await self._ids_said(upstream)
        prompt = await self._ids_asked(upstream)
        if said is None or prompt is None:
            raise _not_continued(died, f"{upstream.engine.title} does not tell tokens")
        self._prompt = prompt
        self._said += said
        kept = self._request
        body = resumable.continued(kept.body, prompt, self._said, bodies.context(upstream.model, upstream.settings))
        self._seen = Seen()
        if body is None:
            self._full = True
            return
        body = _with_ids(upstream, body)
        filters = list(self._stream.filters)  # the text so far may end in half a stop string, or in a thought
        if kept.kind is Kind.CHAT:
            filters.insert(0, _AsChat())
        self._stream = await relay.ask(upstream, Kind.COMPLETION, body, kept.held, seen=self._seen, filters=filters)

    async def _ids_said(self, upstream: Upstream) -> list[int] | None:
        """Of what came.  Where an engine holds text back for stop strings, its ids are ahead: there the text counts."""
        seen, engine = self._seen, upstream.engine
        if engine.probe.token_ids and not (engine.trims_stops and self._request.body.get("stop")):
            return seen.ids if seen.ids or not seen.texts else None
        return await rendering.said_ids(upstream, seen.texts) if seen.texts else []

    async def _ids_asked(self, upstream: Upstream) -> list[int] | None:
        if upstream.engine.probe.token_ids:
            return self._prompt or self._seen.prompt
        return self._prompt or await rendering.asked_ids(upstream, self._request.kind, self._request.body)


class _AsChat:
    """What comes on the completion route, in the form of a chat."""

    def chunks(self, chunks: list[Chunk]) -> list[Chunk]:
        for chunk in chunks:
            for choice in chunk.choices:
                choice.delta, choice.text = choice.delta or Delta(content=choice.text or None), None
        return chunks


def _not_continued(died: EngineDiedError, why: str) -> EngineDiedError:
    return EngineDiedError(died.message, hint=f"the answer could not be continued: {why}")
