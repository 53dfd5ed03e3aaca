"""A native request whose model stands ready: what is asked of the engine, and the response that comes of it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from quart import Response

from hyperllamad.core.errors import UnsupportedError
from hyperllamad.core.models import Kind, Model
from hyperllamad.front import continuation, fitting, heads, ollama_answer, ollama_bodies, rendering, replies
from hyperllamad.front.continuation import Stream
from hyperllamad.front.ollama_answer import ContextOf
from hyperllamad.front.ollama_lines import Lines
from hyperllamad.front.ollama_requests import ChatRequest, GenerateRequest
from hyperllamad.front.ports import Upstream
from hyperllamad.front.request_scope import held, record
from hyperllamad.telemetry import fields

log = logging.getLogger(__name__)

Body = dict[str, Any]
Asked = TypeVar("Asked", ChatRequest, GenerateRequest)


@dataclass(frozen=True, slots=True)
class Turn(ABC, Generic[Asked]):
    """One request and the engine it got, at perf_counter_ns `granted`."""

    asked: Asked
    model: Model  # as named by the request: it may bring a system prompt of its own to shared weights
    options: Mapping[str, Any]
    upstream: Upstream
    lines: Lines
    granted: int

    async def reply(self) -> Response:
        """The response; raises HyperLlamaError as long as nothing was sent."""
        record().streaming = self.asked.stream
        return await self._reply()

    @abstractmethod
    async def _reply(self) -> Response: ...

    async def _run(self, kind: Kind, body: Body, context_of: ContextOf | None = None) -> Response:
        record().inference = True
        stack = held()

        async def begin(body: Body) -> Stream:
            return await continuation.ask(self.upstream, kind, body, stack)

        if self.asked.stream:
            heads.expect(replies.NDJSON)
        engine = await fitting.ask(self.upstream, body, begin, drop=self.asked.truncate)
        answer = ollama_answer.stream if self.asked.stream else ollama_answer.whole
        return await answer(engine, self.lines, self.granted, context_of)

    async def _rendered(self, body: Body, images: int) -> Response:
        """The prompt as the model would see it, instead of an answer."""
        if (text := await rendering.template(self.upstream, body)) is None:
            raise UnsupportedError(f"{self.upstream.engine.title} does not show the rendered prompt")
        return replies.json(self.lines.rendered(text, images))


class ChatTurn(Turn[ChatRequest]):
    """/api/chat."""

    async def _reply(self) -> Response:
        body = ollama_bodies.chat(self.asked, self.model, self.options, self.upstream.settings.context)
        if self.asked.debug_render_only:
            return await self._rendered(body, sum(len(message.images) for message in self.asked.messages))
        return await self._run(Kind.CHAT, body)


class GenerateTurn(Turn[GenerateRequest]):
    """/api/generate."""

    async def _reply(self) -> Response:
        asked = self.asked
        if asked.raw or asked.suffix:
            return await self._as_it_is()
        if asked.template:
            log.warning("the template of a request is ignored", extra=fields(model=asked.asked_model))
        body = ollama_bodies.generate(asked, self.model, self.options, self.upstream.settings.context)
        if asked.debug_render_only:
            return await self._rendered(body, len(asked.images))
        if asked.context:
            return await self._continued(body)
        can_tell = "tokenize" in self.upstream.engine.probe.extra  # an answer without `context` is harmless
        return await self._run(Kind.CHAT, body, self._context_of(body) if can_tell else None)

    async def _as_it_is(self) -> Response:
        """A prompt that no template is laid around."""
        if self.asked.debug_render_only:
            return replies.json(self.lines.rendered(self.asked.prompt, len(self.asked.images)))
        return await self._run(Kind.COMPLETION, self._completion(self.asked.prompt))

    async def _continued(self, body: Body) -> Response:
        """The rendered prompt behind the tokens of an earlier answer, which only token ids can say exactly."""
        prompt = await rendering.prompt_ids(self.upstream, body)
        if prompt is None:
            title = self.upstream.engine.title
            raise UnsupportedError(f"{title} cannot continue from a context", hint="send the messages to /api/chat")
        prompt = [*self.asked.context, *prompt]
        return await self._run(Kind.COMPLETION, self._completion(prompt), self._context_behind(prompt))

    def _completion(self, prompt: str | Sequence[int]) -> Body:
        return ollama_bodies.completion(self.asked, self.options, self.upstream.settings.context, prompt)

    def _context_of(self, body: Body) -> ContextOf:
        async def context(answer: str) -> list[int]:
            prompt = await rendering.prompt_ids(self.upstream, body)
            return [] if prompt is None else await self._context_behind(prompt)(answer)

        return context

    def _context_behind(self, prompt: list[int]) -> ContextOf:
        async def context(answer: str) -> list[int]:
            said = await rendering.text_ids(self.upstream, answer)
            return [] if said is None else [*prompt, *said]

        return context
