"""docs/compatibility.md names every route and every field of the OpenAI and Anthropic dialects."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperllamad.front.anthropic_requests import MESSAGES
from hyperllamad.front.body import Shape
from hyperllamad.front.openai_requests import CHAT, COMPLETION, EMBEDDING
from hyperllamad.front.rerank import RERANK
from hyperllamad.front.responses_requests import RESPONSES

PAGE = (Path(__file__).parents[2] / "docs/compatibility.md").read_text()
COMMON = {"model", "stream", "keep_alive"}  # said once for all routes
ROUTES = {
    "POST /v1/chat/completions": CHAT,
    "POST /v1/completions": COMPLETION,
    "POST /v1/embeddings": EMBEDDING,
    "POST /v1/responses": RESPONSES,
    "POST /v1/rerank": RERANK,
    "POST /v1/messages": MESSAGES,
}


def section(route: str) -> str:
    _, _, rest = PAGE.partition(f"### {route}\n")
    assert rest, f"no heading for {route}"
    return rest.partition("\n##")[0]


@pytest.mark.parametrize("route", ROUTES)
def test_every_field_is_told_of(route: str) -> None:
    shape: Shape[object] = ROUTES[route]
    names = {name for name, _, _ in shape._fields.values()} - COMMON
    text = section(route)
    assert [name for name in sorted(names) if f"`{name}" not in text] == []
    assert len(names) >= 3


def test_the_other_routes_are_told_of() -> None:
    for route in ("GET /v1/models, /v1/models/{model}", "POST /v1/messages/count_tokens"):
        assert section(route)
