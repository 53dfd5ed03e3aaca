"""From a lease to the chunks of an engine's answer, and every way that can go wrong turned into one of our errors.

Owns the HTTP exchange with the engine.  Knows OpenAI's routes and stream, and no dialect of clients: those translate
the chunks.  A stream that ends is either finished (a finish reason and `[DONE]`) or raises; it never ends silently.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, TypeVar

import aiohttp
import anyio
import msgspec

from hyperllamad.core.errors import CutShortError, EngineDiedError, EngineRefusedError, HyperLlamaError
from hyperllamad.core.models import Kind, Model
from hyperllamad.front import engine_wire, request_scope, thinking
from hyperllamad.front.ports import Answer, Content, Meanwhile, Services, Upstream, Work
from hyperllamad.front.resumable import Seen
from hyperllamad.front.sse import EventLines, EventTooLongError
from hyperllamad.front.stops import StopFilter
from hyperllamad.front.thoughts import ThoughtFilter
from hyperllamad.telemetry import fields

log = logging.getLogger(__name__)

Served = TypeVar("Served")

IGNORED = "X-Hyperllama-Ignored"  # fields that the engine can do nothing with
DEATH_KNOWN = 1.5  # seconds; an engine that fails an answer because it dies is gone within about one
_LOST = (aiohttp.ClientError, OSError, TimeoutError)


class EngineFaultError(HyperLlamaError):
    """The engine lives, but what it answered is not an answer."""

    code = "engine_fault"


async def lease(services: Services, model: Model, keep_alive: float | None) -> Upstream:
    """An engine for the current request, held until the request ends; raises HyperLlamaError (429 when over a limit).

    The release is registered before the wait: a client may hang up between the grant and our waking up.
    """
    request_scope.admit()
    held, told = request_scope.held(), request_scope.record()

    async def another() -> Upstream:
        """Not bound to the handler, which has returned by the time that an answer breaks off."""
        return await _lease(services, model, keep_alive, held, told)

    if services.config.server.continue_streams:
        told.another = another
    return await another()


async def _lease(
    services: Services, model: Model, keep_alive: float | None, held: AsyncExitStack, told: request_scope.Record
) -> Upstream:
    wish = services.supervisor.lease(model, keep_alive=keep_alive, client=told.client, weight=told.weight)
    held.callback(wish.release)
    told.begun, told.wanted, told.unread = wish.begun, wish.wanted, services.config.server.unread_wanted
    try:
        upstream = await wish.granted()
    except HyperLlamaError as refusal:
        if refusal.retry_after is not None:
            told.headers["Retry-After"] = str(refusal.retry_after)
        raise
    told.engine = upstream.settings.engine
    return upstream


async def with_engine(
    services: Services, model: Model, keep_alive: float | None, serve: Callable[[Upstream], Awaitable[Served]]
) -> Served:
    """What `serve` makes of an engine; asked once more of a new engine if the first died before anything was sent.

    So a request that came in the moment between an engine's death and the news of it is answered like any other.
    `serve` raises as long as nothing was sent, and must be safe to repeat: an answer nobody has seen is.
    """
    upstream = await lease(services, model, keep_alive)
    try:
        return await serve(upstream)
    except EngineDiedError as died:
        if isinstance(died, CutShortError):
            raise
        log.info("asked again, nothing was sent yet", extra=fields(model=model.name.short, error=died.message))
    return await serve(await lease(services, model, keep_alive))


async def ask(
    upstream: Upstream,
    kind: Kind,
    body: dict[str, Any],
    held: AsyncExitStack,
    *,
    seen: Seen | None = None,
    filters: Sequence[Filter] | None = None,
) -> EngineStream:
    """Begin an answer; `held` closes the engine's response, which makes the engine stop.

    `seen` takes notes of it; `filters` are those of the answer that this one continues.
    Raises UnsupportedError (the engine cannot do this), EngineRefusedError (it said no), EngineDiedError.
    """
    asked_for, body = body, _body(upstream, kind, body)
    meanwhile = None
    if filters is None:
        filters = []
        if not upstream.engine.trims_stops and (stops := body.get("stop")):
            filters.append(StopFilter(stops))
        if thinking.wanted(asked_for):
            filters.append(ThoughtFilter())
        told = request_scope.record()
        _say_ignored(upstream, asked_for, told)
        meanwhile, told.meanwhile = told.meanwhile, None
    asked = time.perf_counter_ns()
    response, work = await _begin(upstream, kind.value, body, held, meanwhile)
    request_scope.begun()
    return EngineStream(upstream, response.content, asked, work, filters=filters, seen=seen)


async def ask_whole(upstream: Upstream, kind: Kind, body: dict[str, Any], held: AsyncExitStack) -> bytes:
    """The body of an answer that is no stream; otherwise like `ask`."""
    return await ask_path(upstream, kind.value, _body(upstream, kind, body), held)


async def ask_path(upstream: Upstream, path: str, body: dict[str, Any], held: AsyncExitStack) -> bytes:
    """The same of a route that is the engine's own (Probe.extra): nothing repairs `body` on the way."""
    request_scope.begun()  # its head will not come before all is done
    response, work = await _begin(upstream, path, body | {"model": upstream.name}, held)
    try:
        whole = await response.read()
    except _LOST as lost:
        raise await _failure(upstream, f"the answer was cut off: {lost}") from lost
    work.pieces += 1
    work.end()
    return whole


def _body(upstream: Upstream, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
    return upstream.engine.body(kind, body, upstream.model, upstream.settings) | {"model": upstream.name}


def _say_ignored(upstream: Upstream, body: dict[str, Any], told: request_scope.Record) -> None:
    if lost := [name for name, neutral in upstream.engine.ignores.items() if body.get(name, neutral) != neutral]:
        told.headers[IGNORED] = ", ".join(lost)


async def _begin(
    upstream: Upstream, path: str, body: dict[str, Any], held: AsyncExitStack, meanwhile: Meanwhile | None = None
) -> tuple[Answer, Work]:
    payload = msgspec.json.encode(body)
    work = upstream.begin(len(payload))
    held.callback(work.end)
    work.waiting = True
    response = await _post(upstream, path, payload, meanwhile)
    held.callback(response.close)
    if response.status != 200:
        raise await _refusal(upstream, response)
    return response, work


async def _post(upstream: Upstream, path: str, payload: bytes, meanwhile: Meanwhile | None) -> Answer:
    """An answer may take as long as it likes: whether its engine makes progress is supervision's to see."""
    try:
        return await upstream.post(path, payload, meanwhile)
    except _LOST as lost:
        raise await _failure(upstream, f"the connection to it was lost: {lost}") from lost


async def _refusal(upstream: Upstream, response: Answer) -> HyperLlamaError:
    """What to tell of an answer that is not 200: as in Ollama its whole body, with its status."""
    try:
        text = (await response.read()).decode(errors="replace").strip()
    except _LOST as lost:
        return await _failure(upstream, f"the connection to it was lost: {lost}")
    if response.status in {500, 503}:  # what a dying engine answers; a healthy one may, too
        await _wait_death_known(upstream)
        if _ended(upstream):
            return _death(upstream)
        upstream.suspect()
    status = response.status if response.status >= 400 else 500
    return EngineRefusedError(text or f"the engine answered {response.status} without a word", status=status)


async def _wait_death_known(upstream: Upstream) -> None:
    """Give supervision the moment it needs to notice that the engine has ended, if that is what happened."""
    if not _ended(upstream):
        with anyio.move_on_after(DEATH_KNOWN):
            await upstream.died.wait()


def _ended(upstream: Upstream) -> bool:
    """The engine has ended, or its answers were cut off on purpose."""
    return upstream.died.is_set() or bool(upstream.explain())


async def _failure(upstream: Upstream, seen: str) -> HyperLlamaError:
    """Why an answer broke off: the engine's own end if that is it, else what was `seen`."""
    await _wait_death_known(upstream)
    if _ended(upstream):
        return _death(upstream)
    upstream.suspect()
    return EngineFaultError(f"an error was encountered while running the model: {upstream.engine.title}: {seen}")


def _death(upstream: Upstream) -> EngineDiedError:
    # The words before the colon are Ollama's.
    why = upstream.explain() or "it ended without saying why"
    kind = CutShortError if upstream.cut_on_purpose else EngineDiedError
    return kind(f"an error was encountered while running the model: {upstream.engine.title}: {why}")


class Filter(Protocol):
    """Changes chunks on their way; those it leaves with nothing to say are gone."""

    def chunks(self, chunks: list[engine_wire.Chunk]) -> list[engine_wire.Chunk]: ...


class EngineStream:
    """The chunks of one answer as they arrive, and what the engine said about the whole."""

    def __init__(
        self,
        upstream: Upstream,
        content: Content,
        asked: int,
        work: Work,
        *,
        filters: Sequence[Filter] = (),
        seen: Seen | None = None,
    ) -> None:
        self.upstream = upstream
        self.asked = asked  # perf_counter_ns when the request went to the engine
        self.finish_reason = ""
        self.usage = engine_wire.Usage()
        self.timings: engine_wire.Timings | None = None
        self.metrics: engine_wire.RequestMetrics | None = None
        self._content = content
        self._work = work
        self._lines = EventLines()
        self.filters = filters
        self._seen = seen
        self._done = False
        self._fault: HyperLlamaError | str = ""  # found behind good chunks: raised at the next read

    async def read(self) -> list[engine_wire.Chunk]:
        """The chunks that arrived together; [] when the answer is finished.

        Raises EngineDiedError, EngineRefusedError (it gave up and said why) or EngineFaultError.
        """
        work = self._work
        while not self._fault and not self._done:
            work.waiting = True
            try:
                data = await self._content.readany()
            except _LOST as lost:
                raise await _failure(self.upstream, f"the answer was cut off: {lost}") from lost
            finally:
                work.waiting = False
            if not data:
                raise await _failure(self.upstream, "the answer was cut off")
            chunks = self._take(data)
            work.pieces += len(chunks)
            for each in self.filters:
                chunks = each.chunks(chunks)
            if chunks:
                return chunks
        if isinstance(self._fault, HyperLlamaError):
            await _wait_death_known(self.upstream)
            raise _death(self.upstream) if _ended(self.upstream) else self._fault
        if self._fault:
            raise await _failure(self.upstream, self._fault)
        return []

    def _take(self, data: bytes) -> list[engine_wire.Chunk]:
        """The chunks in `data`, up to the end or the first fault."""
        chunks: list[engine_wire.Chunk] = []
        decode = engine_wire.chunk
        try:
            for payload in self._lines.feed(data):
                if payload == b"[DONE]":
                    self._finish()
                    break
                chunk = decode(payload)
                if chunk.error is not None:
                    self._fault = _said(chunk.error)
                    break
                self._note(chunk)
                chunks.append(chunk)
        except (msgspec.DecodeError, UnicodeDecodeError, EventTooLongError) as unreadable:
            self._fault = f"it sent what cannot be read: {unreadable}"
        return chunks

    def _note(self, chunk: engine_wire.Chunk) -> None:
        if self._seen is not None:
            self._seen.note(chunk)
        if chunk.choices and (reason := chunk.choices[0].finish_reason):
            self.finish_reason = reason
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.timings is not None:
            self.timings = chunk.timings
        if chunk.metrics is not None:
            self.metrics = chunk.metrics

    def _finish(self) -> None:
        if not self.finish_reason:
            self._fault = "the answer ended without a reason"
        elif self.finish_reason in {"abort", "error"}:
            self._fault = f"it gave the answer up ({self.finish_reason})"
        else:
            self._done = True


def _said(error: engine_wire.ErrorBody | str) -> HyperLlamaError | str:
    """An error event: the engine's own words, with the status it gave when it gave one."""
    if isinstance(error, str):
        return error or "it gave the answer up"
    status = int(error.code) if error.code and str(error.code).isdecimal() else 500
    words = error.message or "it gave the answer up"
    return EngineRefusedError(words, status=status if 400 <= status < 600 else 500)
