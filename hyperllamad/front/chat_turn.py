"""From a chat to a running engine and the body for it: what the OpenAI and Anthropic dialects do alike."""

from __future__ import annotations

from typing import Any

from hyperllamad.front import chat_body, finding, relay
from hyperllamad.front.chat_body import Chat
from hyperllamad.front.ports import Services, Upstream
from hyperllamad.front.request_scope import record


async def begin(
    services: Services, name: str, chat: Chat, *, keep_alive: float | None = None, verb: str = "chat"
) -> tuple[Upstream, dict[str, Any]]:
    """An engine for the model called `name`, and the body to send it; raises HyperLlamaError."""
    model = finding.find(services.catalog, name)
    record().model = model.name.short
    chat_body.check(chat, model, name, verb)
    upstream = await relay.lease(services, model, keep_alive)
    record().inference = True
    return upstream, chat_body.build(chat, model, upstream.settings.context)
