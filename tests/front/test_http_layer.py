"""Section 1 of the specification: routing results, CORS, the Host check, and whose requests are counted."""

from __future__ import annotations

import asyncio

import pytest

from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import by_path

NOTHING = by_path({})


async def test_heartbeat(house: OpenHouse) -> None:
    async with house(NOTHING) as h:
        reply = await h.client.get("/")
        assert (reply.status, reply.body) == (200, b"Ollama is running")
        assert reply.header("content-type") == "text/plain; charset=utf-8"
        assert reply.header("server") == "hyperllamad/1.2.3"
        head = await h.client.ask("HEAD", "/")
        assert (head.status, head.body, head.header("content-length")) == (200, b"", "17")


async def test_version_is_ollamas_and_dotted(house: OpenHouse) -> None:
    async with house(NOTHING) as h:
        reply = await h.client.get("/api/version")
        assert reply.body == b'{"version":"0.33.0"}'
        assert reply.header("content-type") == "application/json; charset=utf-8"
        assert reply.header("content-length") == "20"


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
async def test_unknown_path(house: OpenHouse, method: str) -> None:
    async with house(NOTHING) as h:
        reply = await h.client.ask(method, "/nope", headers={"Host": "127.0.0.1"})
        assert (reply.status, reply.body, reply.header("content-type")) == (404, b"404 page not found", "text/plain")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/api/chat", "POST"),
        ("HEAD", "/api/ps", "GET"),
        ("POST", "/api/tags", "HEAD, GET"),
        ("DELETE", "/", "HEAD, GET"),
        ("PUT", "/api/show", "POST"),
        ("OPTIONS", "/api/chat", "POST"),
    ],
)
async def test_wrong_method(house: OpenHouse, method: str, path: str, allow: str) -> None:
    async with house(NOTHING) as h:
        reply = await h.client.ask(method, path, headers={"Host": "127.0.0.1"})
        assert (reply.status, reply.header("allow"), reply.header("content-type")) == (405, allow, "text/plain")
        assert reply.body == (b"" if method == "HEAD" else b"405 method not allowed")
        assert method == "HEAD" or reply.header("content-length") == "22"


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        ("GET", "/api/tags/", 301, "/api/tags"),
        ("GET", "//api//tags", 301, "/api/tags"),
        ("GET", "/api/tags/?a=1&b=%20", 301, "/api/tags?a=1&b=%20"),
        ("HEAD", "/api/version/", 301, "/api/version"),
        ("POST", "/api/chat/", 307, "/api/chat"),
        ("POST", "/api/./generate", 307, "/api/generate"),
    ],
)
async def test_path_is_cleaned(house: OpenHouse, method: str, path: str, status: int, location: str) -> None:
    async with house(NOTHING) as h:
        reply = await h.client.ask(method, path)
        assert (reply.status, reply.header("location")) == (status, location)
        shown = location.replace("&", "&amp;")
        if method == "GET":
            assert reply.text == f'<a href="{shown}">Moved Permanently</a>.\n\n'
            assert reply.header("content-type") == "text/html; charset=utf-8"
        else:
            assert reply.body == b""
        assert status == 301 or reply.header("content-type") is None


@pytest.mark.parametrize("path", ["/API/tags", "/api/chat/", "/api/tags/x", "/api"])
async def test_path_that_does_not_become_right(house: OpenHouse, path: str) -> None:
    async with house(NOTHING) as h:
        assert (await h.client.get(path)).status == 404


# -- CORS --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "https://localhost:3000",
        "http://127.0.0.1:8080",
        "http://0.0.0.0",
        "app://anything",
        "file://",
        "vscode-webview://abc",
        "http://mine.example",
        "https://a.wild.example:1",
    ],
)
async def test_allowed_origin(house: OpenHouse, origin: str) -> None:
    async with house(NOTHING, origins=("http://mine.example", "https://*.wild.example:1")) as h:
        for path, status in (("/api/version", 200), ("/nope", 404)):
            reply = await h.client.get(path, headers={"Origin": origin})
            assert (reply.status, reply.header("access-control-allow-origin")) == (status, origin)
            assert reply.all("vary") == ["Origin"]


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.com",
        "null",
        "http://[::1]:3000",
        "chrome-extension://abc",
        "http://LOCALHOST:3000",
        "http://localhost.evil.com",
        "https://.wild.example",
    ],
)
async def test_denied_origin(house: OpenHouse, origin: str) -> None:
    async with house(NOTHING, origins=("https://*.wild.example:1",)) as h:
        for method, path in (("GET", "/api/version"), ("GET", "/nope"), ("OPTIONS", "/api/chat")):
            reply = await h.client.ask(method, path, headers={"Origin": origin})
            assert (reply.status, reply.body) == (403, b"")
            assert reply.header("access-control-allow-origin") is None
        assert reply.header("allow") == "POST"


async def test_own_pages_pass_without_cors_headers(house: OpenHouse) -> None:
    async with house(NOTHING) as h:
        for scheme in ("http", "https"):
            headers = {"Host": "127.0.0.1:11434", "Origin": f"{scheme}://127.0.0.1:11434"}
            reply = await h.client.get("/api/version", headers=headers)
            assert (reply.status, reply.header("access-control-allow-origin")) == (200, None)


async def test_preflight(house: OpenHouse) -> None:
    async with house(NOTHING) as h:
        headers = {"Origin": "http://localhost", "Access-Control-Request-Method": "POST"}
        reply = await h.client.ask("OPTIONS", "/api/chat", headers=headers)
        assert (reply.status, reply.body) == (204, b"")
        assert reply.header("allow") == "POST"
        assert reply.header("access-control-max-age") == "43200"
        assert reply.header("access-control-allow-methods") == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
        assert "X-Stainless-Timeout" in (reply.header("access-control-allow-headers") or "")
        wanted = ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"]
        assert reply.all("vary") == wanted
        unknown = await h.client.ask("OPTIONS", "/nope", headers=headers)
        assert (unknown.status, unknown.header("allow")) == (204, None)


async def test_every_origin(house: OpenHouse) -> None:
    async with house(NOTHING, origins=("*",)) as h:
        for method in ("GET", "OPTIONS"):
            reply = await h.client.ask(method, "/api/version", headers={"Origin": "http://evil.com"})
            assert reply.header("access-control-allow-origin") == "*"
            assert reply.all("vary") == []


# -- Host --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:11434", 200),
        ("foo.local:11434", 200),
        ("a.localhost", 200),
        ("x.internal:1", 200),
        ("", 200),
        ("127.0.0.1:11434", 200),
        ("[::1]:11434", 200),
        ("0.0.0.0:1", 200),
        ("192.168.7.7", 200),
        ("10.1.2.3:99", 200),
        ("[fd00::1]", 200),
        ("evil.com", 403),
        ("evil.com:11434", 403),
        ("localhost.evil.com", 403),
        ("8.8.8.8", 403),
        ("[2001:4860:4860::8888]:11434", 403),
        ("169.254.1.1", 403),
    ],
)
async def test_host_of_a_loopback_server(house: OpenHouse, host: str, status: int) -> None:
    async with house(NOTHING) as h:
        reply = await h.client.get("/api/version", headers={"Host": host})
        assert reply.status == status
        assert status == 200 or reply.body == b""


@pytest.mark.parametrize("bound", ["0.0.0.0:11434", "192.168.1.5", ":11434", "[::]:1"])
async def test_host_is_not_checked_on_other_addresses(house: OpenHouse, bound: str) -> None:
    async with house(NOTHING, host=bound) as h:
        assert (await h.client.get("/api/version", headers={"Host": "evil.com"})).status == 200


async def test_options_of_a_local_name_is_always_204(house: OpenHouse) -> None:
    async with house(NOTHING) as h:
        for path in ("/api/chat", "/nope"):
            reply = await h.client.ask("OPTIONS", path, headers={"Host": "localhost:11434"})
            assert (reply.status, reply.body) == (204, b"")


# -- the rest ----------------------------------------------------------------------------------------------------------


async def test_health_and_metrics(house: OpenHouse) -> None:
    async with house(NOTHING) as h:
        assert (await h.client.get("/health")).json() == {"status": "ok", "version": "1.2.3"}
        h.supervisor.closing = True
        closing = await h.client.get("/health")
        assert (closing.status, closing.json()["status"]) == (503, "closing")
        await h.client.get("/a/path/nobody/knows")
        metrics = await h.client.get("/metrics")
        assert metrics.header(
            "content-type",
        ).startswith("text/plain; version=")
        assert 'hyperllama_requests_total{route="/health",status="503"} 1.0' in metrics.text
        assert 'hyperllama_requests_total{route="other",status="404"} 1.0' in metrics.text
        assert "nobody" not in metrics.text


async def test_a_body_that_is_too_large(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperllamad.front.app.LARGEST_BODY", 1000)
    async with house(NOTHING) as h:
        reply = await h.client.post("/api/chat", {"model": "m", "prompt": "x" * 2000})
        assert reply.status == 413
        assert set(reply.json()) == {"error"}


async def test_a_body_that_never_ends(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperllamad.front.body.PATIENCE", 0.05)
    async with house(NOTHING) as h:
        reader, writer = await asyncio.open_unix_connection(str(h.socket))
        writer.write(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert b" 408 " in await reader.readline()
        writer.close()


async def test_a_websocket_is_refused(house: OpenHouse) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    async with house(NOTHING) as h, h.client.exchange("GET", "/api/chat", headers=upgrade) as exchange:
        assert b" 403 " in await exchange.reader.readline()
