"""POST /v1/responses: OpenAI's newer route, over the same chats."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Response

from hyperllamad.core.errors import BadRequestError
from hyperllamad.core.models import Kind
from hyperllamad.front import (
    answers,
    chat_body,
    chat_turn,
    compat_body,
    event_stream,
    finding,
    heads,
    openai_errors,
    relay,
    replies,
)
from hyperllamad.front import responses_requests as requests
from hyperllamad.front.answers import Gathered, Tokens
from hyperllamad.front.chat_body import Chat
from hyperllamad.front.ports import Services, Upstream
from hyperllamad.front.request_scope import record
from hyperllamad.front.responses_replies import ResponsesReply
from hyperllamad.front.responses_requests import RESPONSES, ResponsesRequest


class ResponsesRoutes:
    """One route."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def blueprint(self) -> Blueprint:
        routes = Blueprint("responses", __name__)
        openai_errors.install(routes)
        routes.add_url_rule("/v1/responses", view_func=self.respond, methods=["POST"])
        return routes

    async def respond(self) -> Response:
        asked, chat = await compat_body.receive(RESPONSES, _with_chat)
        if not asked.model:
            raise BadRequestError("model is required")
        if not chat.messages:
            return await self._load(asked, chat)

        async def answer(upstream: Upstream, body: dict[str, Any]) -> Response:
            if asked.stream:
                heads.expect(replies.EVENTS, event_stream.NOT_KEPT)
            found = await answers.ask(upstream, Kind.CHAT, [body])
            return await event_stream.one(found, ResponsesReply(asked), streamed=asked.stream)

        return await chat_turn.run(self._services, asked.model, chat, answer, keep_alive=asked.keep_alive)

    async def _load(self, asked: ResponsesRequest, chat: Chat) -> Response:
        """Nothing to answer: the model is loaded, and the answer is empty."""
        model = finding.find(self._services.catalog, asked.model)
        record().model = model.name.short
        chat_body.check(chat, model, asked.model, "chat")
        await relay.lease(self._services, model, asked.keep_alive)
        reply = ResponsesReply(asked)
        if asked.stream:
            return Response(reply.begin() + reply.finish(0, "stop") + reply.end(Tokens()), content_type=replies.EVENTS)
        return replies.json(reply.whole(Gathered(), "stop", Tokens()), content_type=replies.BARE_JSON)


def _with_chat(request: ResponsesRequest) -> tuple[ResponsesRequest, Chat]:
    return request, requests.chat(request)
