"""The routes about an account and the cloud, of which there is neither."""

from __future__ import annotations

from typing import Any

import pytest

from tests.front.store.asks import J
from tests.front.store.conftest import Opened


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("POST", "me", 401, {"error": "unauthorized"}),
        ("POST", "signout", 401, {"error": "you are not currently signed in"}),
        ("DELETE", "user/keys/abc", 401, {"error": "you are not currently signed in"}),
        ("GET", "status", 200, {"cloud": {"disabled": True, "source": "config"}}),
        ("POST", "experimental/web_search", 403, {"error": "ollama cloud is disabled: web search is unavailable"}),
        ("POST", "experimental/web_fetch", 403, {"error": "ollama cloud is disabled: web fetch is unavailable"}),
        ("GET", "experimental/model-recommendations", 200, {"recommendations": []}),
    ],
)
async def test_account(open_house: Opened, method: str, path: str, status: int, body: dict[str, Any]) -> None:
    async with open_house as h:
        reply = await h.client.ask(method, f"/api/{path}")
        assert (reply.status, reply.header("content-type"), reply.json()) == (status, J, body)
        assert (await h.client.ask("HEAD", "/api/status")).status == 405
