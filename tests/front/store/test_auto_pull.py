"""`models.auto_pull`: what a request for a model that is not here leads to, over a hub of our own."""

from __future__ import annotations

import re
from pathlib import Path
from threading import Semaphore
from typing import Any, cast

import anyio
import pytest

from hyperllamad.config.load import load_config
from hyperllamad.config.tables import ModelsTable
from hyperllamad.front import auto_pull
from hyperllamad.front.app import quart_app
from hyperllamad.front.ports import Services
from hyperllamad.store.library import Library
from hyperllamad.store.shortnames import ShortNames
from hyperllamad.telemetry import Metrics
from tests.front.conftest import House, OpenHouse, Store
from tests.front.store.asks import NAME
from tests.store.files import small_gguf
from tests.store.hub import Hub

NOTHING: tuple[Any, ...] = ()
ON = {"models": {"auto_pull": True}}


@pytest.fixture(autouse=True)
def _offered(hub: Hub) -> None:
    hub.put("org/repo", {"x-Q4_0.gguf": small_gguf()})
    hub.put("org/other", {"y-Q4_0.gguf": small_gguf(general__name="Other")})


async def names(h: House) -> set[str]:
    return {item["name"] for item in (await h.client.get("/api/tags")).json()["models"]}


@pytest.mark.parametrize("route", ["/api/chat", "/api/generate"])
async def test_it_comes_and_is_used(house: OpenHouse, store: Store, hub: Hub, route: str) -> None:
    async with house(NOTHING, store=store, config=ON) as h:
        body: dict[str, Any] = {"model": NAME, "stream": False, "options": {"temperature": 0}}
        reply = await h.client.post(route, body)  # no prompt: it is only loaded
        assert (reply.status, reply.json()["done_reason"]) == (200, "load")
        assert f"{NAME}:latest" in await names(h)
        fetched = dict(hub.served)
        await h.client.post(route, body)
        assert hub.served == fetched  # once is enough


async def test_many_who_ask_at_once_fetch_it_once(house: OpenHouse, store: Store, hub: Hub) -> None:
    async with house(NOTHING, store=store, config=ON) as h:
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await h.client.post("/api/generate", {"model": NAME, "stream": False})).status)

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(ask)
        assert statuses == [200] * 8
        assert hub.served["x-Q4_0.gguf"] == len(small_gguf())


@pytest.mark.parametrize(
    ("route", "status", "words"),
    [
        ("/api/chat", 404, "model 'hf.co/org/none' not found"),
        ("/api/embed", 404, "not found, try pulling it first"),
        ("/v1/chat/completions", 404, "hf.co/org/none"),
        ("/v1/messages", 404, "hf.co/org/none"),
    ],
)
async def test_what_is_nowhere_is_not_found(
    house: OpenHouse,
    store: Store,
    route: str,
    status: int,
    words: str,
) -> None:
    async with house(NOTHING, store=store, config=ON) as h:
        messages = [{"role": "user", "content": "Hi"}]
        body = {"model": "hf.co/org/none", "messages": messages, "max_tokens": 5, "input": "x", "stream": False}
        reply = await h.client.post(route, body)
        assert reply.status == status
        assert words in reply.body.decode()


async def test_what_stands_in_the_way_is_told(house: OpenHouse, store: Store, hub: Hub) -> None:
    hub.fail("x-Q4_0.gguf", corrupt=True, times=99)
    async with house(NOTHING, store=store, config=ON) as h:
        reply = await h.client.post("/api/generate", {"model": NAME, "stream": False})
        assert reply.status == 500
        assert "digest mismatch" in reply.json()["error"]


async def test_a_client_that_leaves_takes_its_interest_with_it(
    house: OpenHouse,
    store: Store,
    hub: Hub,
) -> None:
    hub.gates["x-Q4_0.gguf"] = Semaphore(0)
    flights = store.library._pulls._flights
    async with house(NOTHING, store=store, config=ON) as h:
        async with h.client.exchange("POST", "/api/generate", {"model": NAME}):
            with anyio.fail_after(10):
                while not flights:
                    await anyio.sleep(0.01)
        with anyio.fail_after(10):
            while flights:
                await anyio.sleep(0.01)
        assert f"{NAME}:latest" not in await names(h)


async def test_only_where_it_is_wanted(house: OpenHouse, store: Store, hub: Hub) -> None:
    assert ModelsTable().auto_pull is False
    async with house(NOTHING, store=store) as h:
        assert (await h.client.post("/api/generate", {"model": NAME, "stream": False})).status == 404
    async with house(NOTHING, store=store, config=ON) as h:
        assert (await h.client.post("/api/show", {"model": NAME})).status == 404
        assert (await h.client.post("/api/copy", {"source": NAME, "destination": "n"})).status == 404
    assert hub.served["x-Q4_0.gguf"] == 0


def test_every_route_that_uses_a_model_fetches(tmp_path: Path) -> None:
    """A new one, or one that is renamed, must not be forgotten."""
    config = load_config(tmp_path, environ={"HOME": str(tmp_path)})
    library = Library(config, ShortNames(()))
    app = quart_app(Services(cast("Any", None), cast("Any", None), library, config, Metrics(), "1"))
    named = re.compile("chat|generate|embed|completions|responses$|messages|rerank|tokenize")
    routes = {
        rule.rule for rule in app.url_map.iter_rules() if "POST" in (rule.methods or ()) and named.search(rule.rule)
    }
    assert len(routes) >= 10
    assert routes <= auto_pull.USES
