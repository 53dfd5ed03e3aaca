"""API keys: which routes ask for one, in whose words a client is turned away, what limits do, what is never told."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.config.load import load_config
from hyperllamad.front import relay
from hyperllamad.front.app import create_app
from hyperllamad.keys import KeyRing
from tests.front.conftest import House, OpenHouse, wait_until
from tests.front.http_client import Reply
from tests.front.scripted_engine import Answer, Asked, Stream, Whole, chat_event, short_chat

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
MESSAGE = CHAT | {"max_tokens": 5}
WORDS = ["a"]  # what the engine says; USAGE says 10 tokens each time


def ring(root: Path, text: str, *, required: bool = True) -> KeyRing:
    root.mkdir(exist_ok=True)
    (root / "keys.toml").touch(mode=0o600)
    (root / "keys.toml").write_text(text)
    main = f"[keys]\nfile = '{root}/keys.toml'\nrequired = {str(required).lower()}\n"
    (root / "hyperllamad.toml").write_text(main)
    return KeyRing(load_config(root, {"HOME": str(root)}))


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    entries = [
        'name = "alice"\nkey = "hl-alice"\nweight = 3\n',
        'name = "one"\nkey = "hl-one"\nconcurrent = 1\n',
        'name = "thrifty"\nkey = "hl-thrifty"\ntokens_per_minute = 6\n',
    ]
    return ring(tmp_path / "keys", "".join(f"[[key]]\n{entry}" for entry in entries))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def talk(_: Asked) -> Answer:
    return Stream(short_chat(*WORDS))


async def test_a_reload_forgives_nobody(house: OpenHouse, keys: KeyRing) -> None:
    async with house(talk, keys=keys) as h:
        assert (await h.client.post("/api/chat", CHAT, headers=bearer("hl-thrifty"))).status == 200
        await h.wait_idle()
        h.current.app = create_app(replace(h.services, config=h.services.config))
        assert (await h.client.post("/api/chat", CHAT, headers=bearer("hl-thrifty"))).status == 429


async def test_every_route_asks_for_a_key_but_four(house: OpenHouse, keys: KeyRing) -> None:
    async with house(talk, keys=keys) as h:
        for method, path in (("GET", "/"), ("HEAD", "/"), ("GET", "/health"), ("GET", "/api/version")):
            assert (await h.client.ask(method, path)).status == 200, path
        for method, path in (
            *(("GET", path) for path in ("/api/tags", "/api/ps", "/metrics", "/v1/models", "/v1/models/m", "/none")),
            *(("POST", path) for path in ("/api/chat", "/api/show", "/api/me", "/v1/messages", "/api/pull")),
            ("DELETE", "/api/delete"),
            ("HEAD", "/api/blobs/sha256:00"),
        ):
            reply = await h.client.ask(method, path)
            assert (reply.status, reply.header("www-authenticate")) == (401, 'Bearer realm="hyperllama"'), path
        assert h.supervisor.taken == 0


@pytest.mark.parametrize(
    "headers",
    [
        bearer("hl-alice"),
        {"authorization": "bearer   hl-alice "},
        {"x-api-key": "hl-alice"},
        {"Authorization": "Bearer ollama", "X-Api-Key": "hl-alice"},
    ],
)
async def test_both_headers_are_taken(house: OpenHouse, keys: KeyRing, headers: dict[str, str]) -> None:
    async with house(talk, keys=keys) as h:
        assert (await h.client.get("/api/tags", headers=headers)).status == 200
        assert (await h.client.post("/v1/messages", MESSAGE, headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("hl-alic"),
        bearer("hl-alice2"),
        bearer(""),
        {"Authorization": "Basic hl-alice"},
        {"Authorization": "hl-alice"},
        bearer("\xff\xfe"),
    ],
)
async def test_what_is_no_key_is_refused_in_the_words_of_each_api(
    house: OpenHouse, keys: KeyRing, headers: dict[str, str]
) -> None:
    async with house(talk, keys=keys) as h:
        native = await h.client.post("/api/chat", CHAT, headers=headers)
        openai = await h.client.post("/v1/chat/completions", CHAT, headers=headers)
        anthropic = await h.client.post("/v1/messages", MESSAGE, headers=headers)
    assert {reply.status for reply in (native, openai, anthropic)} == {401}
    says = native.json()["error"]
    assert "API key" in says
    assert openai.json()["error"] == {
        "message": says,
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    assert anthropic.json()["error"] == {"type": "authentication_error", "message": says}


async def test_turns_are_taken_under_the_name_of_the_key(house: OpenHouse, keys: KeyRing) -> None:
    async with house(talk, keys=keys) as h:
        for key in ("hl-alice", "hl-one"):
            await h.client.post("/api/chat", CHAT, headers=bearer(key))
        assert h.supervisor.clients == [("alice", 3), ("one", 1)]


async def test_off_means_that_no_key_is_looked_at(house: OpenHouse, tmp_path: Path) -> None:
    keys = ring(tmp_path / "keys", "nonsense", required=False)
    async with house(talk, keys=keys) as h:
        assert (await h.client.post("/api/chat", CHAT, headers=bearer("anything"))).status == 200


async def test_a_web_page_can_read_that_it_needs_a_key(house: OpenHouse, keys: KeyRing) -> None:
    origin = {"Origin": "http://localhost:3000"}
    async with house(talk, keys=keys) as h:
        preflight = await h.client.ask("OPTIONS", "/api/chat", headers=origin)
        assert preflight.status == 204
        assert "Authorization" in (preflight.header("access-control-allow-headers") or "")
        refused = await h.client.post("/api/chat", CHAT, headers=origin)
        assert (refused.status, refused.header("access-control-allow-origin")) == (401, "http://localhost:3000")


# -- limits ------------------------------------------------------------------------------------------------------------


def assert_turned_away(native: Reply, openai: Reply, anthropic: Reply) -> int:
    """All three say 429 and when to come again, each in its own words; gives the seconds."""
    for reply in (native, openai, anthropic):
        assert reply.status == 429, reply.text
    says = native.json()["error"]
    assert "this API key has asked for more than" in says
    assert openai.json()["error"] | {"message": ""} == {
        "message": "",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert anthropic.json()["error"]["type"] == "rate_limit_error"
    waits = {int(reply.header("retry-after") or 0) for reply in (native, openai, anthropic)}
    assert min(waits) >= 1 and f"try again in {native.header('retry-after')} s" in says
    return max(waits)


async def ask_all(h: House, key: str) -> tuple[Reply, Reply, Reply]:
    native = await h.client.post("/api/chat", CHAT, headers=bearer(key))
    openai = await h.client.post("/v1/chat/completions", CHAT, headers=bearer(key))
    return native, openai, await h.client.post("/v1/messages", MESSAGE, headers=bearer(key))


async def test_one_more_request_than_allowed_at_once(house: OpenHouse, keys: KeyRing) -> None:
    go = asyncio.Event()

    def script(_: Asked) -> Answer:
        return Stream([chat_event("a"), go, *short_chat()])

    async with house(script, keys=keys) as h:
        async with h.client.exchange("POST", "/api/chat", CHAT, headers=bearer("hl-one")) as first:
            await first.event()
            assert_turned_away(*await ask_all(h, "hl-one"))
            assert h.supervisor.open == 1, "who is turned away holds nothing"
            assert (await h.client.get("/api/tags", headers=bearer("hl-one"))).status == 200, "looking is free"
            go.set()
            assert (await h.client.post("/api/chat", CHAT, headers=bearer("hl-alice"))).status == 200
            while await first.data():
                pass
        await h.wait_idle()
        assert (await h.client.post("/api/chat", CHAT, headers=bearer("hl-one"))).status == 200


async def test_who_hangs_up_does_not_count_any_more(house: OpenHouse, keys: KeyRing) -> None:
    def script(_: Asked) -> Answer:
        return Stream([chat_event("a"), asyncio.Event()])

    async with house(script, keys=keys) as h:
        for _ in range(5):
            async with h.client.exchange("POST", "/api/chat", CHAT, headers=bearer("hl-one")) as left:
                assert (await left.event()).status_code == 200
            await h.wait_idle()


async def test_a_request_that_failed_does_not_count_any_more(house: OpenHouse, keys: KeyRing) -> None:
    async with house(lambda _: Whole(500, b"no"), keys=keys) as h:
        for _ in range(3):
            assert (await h.client.post("/api/chat", CHAT, headers=bearer("hl-one"))).status == 500
            await h.wait_idle()


async def test_asked_twice_because_the_engine_died_counts_once(
    house: OpenHouse, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "DEATH_KNOWN", 0.01)
    async with house(talk, keys=keys) as h:

        def script(asked: Asked) -> Answer:
            if len(h.engine.asked) > 1:
                h.supervisor.upstream.cause, h.supervisor.upstream.died = "", asyncio.Event()
                return talk(asked)
            h.supervisor.upstream.die("it died")
            return Whole(500, b"")

        h.engine.script = script
        assert (await h.client.post("/api/chat", CHAT, headers=bearer("hl-one"))).status == 200
        assert h.supervisor.taken == 2


async def test_tokens_of_a_minute(house: OpenHouse, keys: KeyRing) -> None:
    async with house(talk, keys=keys) as h:
        assert (await h.client.post("/api/chat", CHAT, headers=bearer("hl-thrifty"))).status == 200
        await h.wait_idle()
        wait = assert_turned_away(*await ask_all(h, "hl-thrifty"))
        assert 48 <= wait <= 50, "10 tokens of 6 are used: 4 in debt, and one more is a minute's sixth each"


# -- what is told ------------------------------------------------------------------------------------------------------


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


async def test_no_key_reaches_the_log_and_the_name_does(
    house: OpenHouse, keys: KeyRing, everything: pytest.LogCaptureFixture
) -> None:
    def lines() -> str:
        return "\n".join(f"{record.getMessage()} {getattr(record, 'fields', '')}" for record in everything.records)

    async with house(talk, keys=keys) as h:
        for headers in (bearer("hl-alice"), {"x-api-key": "hl-alice"}, bearer("hl-wrong"), {"x-api-key": "hl-wrong"}):
            await h.client.post("/api/chat", CHAT, headers=headers)
            await h.client.post("/v1/chat/completions", {"model": "none"}, headers=headers)
        await wait_until(lambda: lines().count("'status': 401") == 4)
    assert "'client': 'alice'" in lines()
    assert not re.search("hl-[aw]", lines())  # nor a part of one; a path may begin with "hl-"
