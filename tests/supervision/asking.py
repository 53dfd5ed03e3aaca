"""Questions to engines of tests."""

from __future__ import annotations

from typing import Any

from hyperllamad.core.models import Kind
from hyperllamad.supervision.upstream import BASE, Upstream


async def chat(upstream: Upstream, **body: Any) -> str:
    """The text of a whole answer."""
    async with upstream.session.post(BASE + Kind.CHAT, json={"model": upstream.name, "messages": [], **body}) as reply:
        assert reply.status == 200
        text: str = (await reply.json())["choices"][0]["message"]["content"]
        return text
