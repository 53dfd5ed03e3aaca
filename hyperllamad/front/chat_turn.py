"""From a chat to a running engine and the body for it: what the OpenAI and Anthropic dialects do alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from quart import Response

from hyperllamad.front import chat_body, finding, relay
from hyperllamad.front.chat_body import Chat
from hyperllamad.front.ports import Services, Upstream
from hyperllamad.front.request_scope import record

Answer = Callable[[Upstream, dict[str, Any]], Awaitable[Response]]


async def run(
    services: Services, name: str, chat: Chat, answer: Answer, *, keep_alive: float | None = None, verb: str = "chat"
) -> Response:
    """What `answer` makes of an engine for the model called `name` and the body to send it; raises HyperLlamaError.

    `answer` may be called twice, see relay.with_engine.
    """
    model = finding.find(services.catalog, name)
    record().model = model.name.short
    chat_body.check(chat, model, name, verb)

    async def serve(upstream: Upstream) -> Response:
        record().inference = True
        return await answer(upstream, chat_body.build(chat, model, upstream.settings.context))

    return await relay.with_engine(services, model, keep_alive, serve)
