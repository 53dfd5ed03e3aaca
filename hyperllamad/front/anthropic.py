"""Anthropic's routes: POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Response

from hyperllamad.core.models import Kind
from hyperllamad.front import (
    answers,
    anthropic_chats,
    anthropic_errors,
    chat_turn,
    compat_body,
    event_stream,
    finding,
    gojson,
    heads,
    relay,
    rendering,
    replies,
)
from hyperllamad.front.answers import Answers
from hyperllamad.front.anthropic_replies import MessageReply
from hyperllamad.front.anthropic_requests import MESSAGES, MessagesRequest
from hyperllamad.front.chat_body import Chat
from hyperllamad.front.chat_turn import Answer
from hyperllamad.front.ports import Services, Upstream
from hyperllamad.front.request_scope import held

Body = dict[str, Any]


class AnthropicRoutes:
    """Messages, and how long they are."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def blueprint(self) -> Blueprint:
        routes = Blueprint("anthropic", __name__)
        anthropic_errors.install(routes)
        routes.add_url_rule("/v1/messages", view_func=self.message, methods=["POST"])
        routes.add_url_rule("/v1/messages/count_tokens", view_func=self.count_tokens, methods=["POST"])
        return routes

    async def message(self) -> Response:
        asked, chat = await compat_body.receive(MESSAGES, _with_chat)

        async def answer(upstream: Upstream, body: Body) -> Response:
            if asked.stream:
                heads.expect(replies.EVENTS, event_stream.NOT_KEPT)
            found = await answers.ask(upstream, Kind.CHAT, [body])
            return await event_stream.one(found, MessageReply(asked.model, _estimate(chat)), streamed=asked.stream)

        return await self._run(asked, chat, answer)

    async def count_tokens(self) -> Response:
        asked, chat = await compat_body.receive(MESSAGES, _to_count)

        async def answer(upstream: Upstream, body: Body) -> Response:
            counted = gojson.encode({"input_tokens": await _count(upstream, body)})
            return replies.json(counted + b"\n", content_type=replies.BARE_JSON)

        return await self._run(asked, chat, answer)

    async def _run(self, asked: MessagesRequest, chat: Chat, answer: Answer) -> Response:
        model = finding.find(self._services.catalog, asked.model)
        chat = anthropic_chats.for_model(chat, model)
        return await chat_turn.run(self._services, asked.model, chat, answer, keep_alive=asked.keep_alive)


def _with_chat(request: MessagesRequest) -> tuple[MessagesRequest, Chat]:
    return request, anthropic_chats.of_message(request)


def _to_count(request: MessagesRequest) -> tuple[MessagesRequest, Chat]:
    return request, anthropic_chats.to_count(request)


async def _count(upstream: Upstream, body: Body) -> int:
    """From the engine's tokenizer; an engine without that route is asked for one token, and says what it read."""
    if (ids := await rendering.prompt_ids(upstream, body)) is not None:
        return len(ids)
    found = Answers([await relay.ask(upstream, Kind.CHAT, body | {"max_tokens": 1}, held())])  # all of it, or an error
    _, tokens = await event_stream.gather(found, 1)
    return tokens.prompt


def _estimate(chat: Chat) -> int:
    """Tokens of a prompt nobody has counted yet: four characters each, as Ollama has it; the last event is exact."""
    return sum(len(text) for message in chat.messages if isinstance(text := message["content"], str)) // 4
