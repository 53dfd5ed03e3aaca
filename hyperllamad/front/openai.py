"""The OpenAI routes that generate: POST /v1/chat/completions and /v1/completions."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Response

from hyperllamad.core.errors import BadRequestError, ModelNotFoundError, UnsupportedError
from hyperllamad.core.models import Capability, Kind, Model
from hyperllamad.front import (
    answers,
    chat_turn,
    compat_body,
    event_stream,
    finding,
    heads,
    openai_chats,
    openai_errors,
    relay,
    rendering,
    replies,
)
from hyperllamad.front.chat_body import STREAMING, Chat
from hyperllamad.front.openai_replies import ChatReply, CompletionReply, Reply
from hyperllamad.front.openai_requests import CHAT, COMPLETION, ChatRequest, CompletionRequest
from hyperllamad.front.ports import Services, Upstream
from hyperllamad.front.request_scope import record

Body = dict[str, Any]


class OpenAIRoutes:
    """Chat and completion."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def blueprint(self) -> Blueprint:
        routes = Blueprint("openai", __name__)
        openai_errors.install(routes)
        routes.add_url_rule("/v1/chat/completions", view_func=self.chat, methods=["POST"])
        routes.add_url_rule("/v1/completions", view_func=self.completion, methods=["POST"])
        return routes

    async def chat(self) -> Response:
        asked, chat = await compat_body.receive(CHAT, _with_chat)
        if not asked.model:
            raise BadRequestError("model is required")

        async def answer(upstream: Upstream, body: Body) -> Response:
            reply = ChatReply(asked.model, answers=asked.n or 1, usage=asked.stream_options.include_usage)
            if asked.debug_render_only:
                return await _rendered(upstream, body, reply)
            return await _answer(upstream, Kind.CHAT, openai_chats.bodies(body, asked.n), reply, stream=asked.stream)

        return await chat_turn.run(self._services, asked.model, chat, answer, keep_alive=asked.keep_alive)

    async def completion(self) -> Response:
        asked, chat = await compat_body.receive(COMPLETION, _with_completion)
        if not asked.model:
            raise ModelNotFoundError("")
        if not asked.prompt:
            return await self._load(asked)
        if asked.suffix:
            return await self._fill_in(asked, chat)

        async def answer(upstream: Upstream, body: Body) -> Response:
            bodies = openai_chats.bodies(body, asked.n)
            return await _answer(upstream, Kind.CHAT, bodies, _reply(asked), stream=asked.stream)

        return await chat_turn.run(
            self._services, asked.model, chat, answer, keep_alive=asked.keep_alive, verb="generate"
        )

    async def _load(self, asked: CompletionRequest) -> Response:
        await relay.lease(self._services, self._generating(asked), asked.keep_alive)
        reply = _reply(asked)
        if asked.stream:
            return Response(reply.loaded_stream(), content_type=replies.EVENTS)
        return replies.json(reply.loaded(), content_type=replies.BARE_JSON)

    async def _fill_in(self, asked: CompletionRequest, chat: Chat) -> Response:
        """What stands between the prompt and the suffix: no template is laid around these."""
        model = self._generating(asked)
        if Capability.INSERT not in model.capabilities:
            raise UnsupportedError(f"{model.name.full} does not support insert")

        async def serve(upstream: Upstream) -> Response:
            record().inference = True
            body = openai_chats.fill_in(asked, chat, model, upstream.settings.context) | STREAMING
            bodies = openai_chats.bodies(body, asked.n)
            return await _answer(upstream, Kind.COMPLETION, bodies, _reply(asked), stream=asked.stream)

        return await relay.with_engine(self._services, model, asked.keep_alive, serve)

    def _generating(self, asked: CompletionRequest) -> Model:
        model = finding.find(self._services.catalog, asked.model)
        record().model = model.name.short
        if Capability.COMPLETION not in model.capabilities:
            raise UnsupportedError(f'"{asked.model}" does not support generate')
        return model


def _with_chat(request: ChatRequest) -> tuple[ChatRequest, Chat]:
    return request, openai_chats.of_chat(request)


def _with_completion(request: CompletionRequest) -> tuple[CompletionRequest, Chat]:
    return request, openai_chats.of_completion(request)


def _reply(asked: CompletionRequest) -> CompletionReply:
    return CompletionReply(asked.model, answers=asked.n or 1, usage=asked.stream_options.include_usage)


async def _answer(upstream: Upstream, kind: Kind, bodies: list[Body], reply: Reply, *, stream: bool) -> Response:
    if stream:
        heads.expect(replies.EVENTS)
    found = await answers.ask(upstream, kind, bodies)
    if stream:
        return await event_stream.stream(found, reply)
    gathered, tokens = await event_stream.gather(found, len(bodies))
    reasons = [found.finish_reason(which) for which in range(len(bodies))]
    return replies.json(reply.whole(gathered, reasons, tokens), content_type=replies.BARE_JSON)


async def _rendered(upstream: Upstream, body: Body, reply: ChatReply) -> Response:
    """The prompt as the model would see it, instead of an answer."""
    if (text := await rendering.template(upstream, body)) is None:
        raise UnsupportedError(f"{upstream.engine.title} does not show the rendered prompt")
    return replies.json(reply.rendered(text), content_type=replies.BARE_JSON)
