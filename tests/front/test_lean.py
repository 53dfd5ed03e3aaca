"""lean.py: what is left out changes no answer."""

from __future__ import annotations

import pytest
from quart import Blueprint, Response, g, request, session, url_for

from hyperllamad.front.lean import LeanQuart


@pytest.fixture
def app() -> LeanQuart:
    app = LeanQuart("hyperllamad")
    inner = Blueprint("inner", "hyperllamad")

    @app.get("/plain")
    def plain() -> str:  # no coroutine: Quart runs it in a thread
        return "plain"

    @app.get("/who/<name>")
    async def who(name: str) -> str:
        return f"{name} {request.host} {request.blueprints} {url_for('who', name='x')}"

    @app.get("/session")
    async def keep() -> str:
        session["key"] = "value"
        return "kept"

    @inner.before_request
    async def mark() -> None:
        g.marked = True

    @inner.get("/inner")
    async def broken() -> str:
        raise LookupError(str(g.marked))

    @inner.errorhandler(LookupError)
    async def mended(fault: LookupError) -> Response:
        return Response(f"mended {fault}", 418)

    app.register_blueprint(inner)
    return app


@pytest.mark.parametrize("host", ["localhost", "[::1]:11434", "a" * 70, ""])
async def test_routes_of_any_host(app: LeanQuart, host: str) -> None:
    client = app.test_client()
    for _ in range(2):  # what is found out once serves the second time, too
        reply = await client.get("/who/me", headers={"Host": host})
        assert await reply.get_data(as_text=True) == f"me {host} [] /who/x"


async def test_a_handler_need_not_be_a_coroutine(app: LeanQuart) -> None:
    client = app.test_client()
    for _ in range(2):
        assert await (await client.get("/plain")).get_data(as_text=True) == "plain"


async def test_handlers_of_a_blueprints_own(app: LeanQuart) -> None:
    reply = await app.test_client().get("/inner")
    assert (reply.status_code, await reply.get_data(as_text=True)) == (418, "mended True")


async def test_nobody_keeps_anything_in_a_session(app: LeanQuart) -> None:
    reply = await app.test_client().get("/session")
    assert (reply.status_code, "Set-Cookie" in reply.headers) == (500, False)


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/plain/", 404)])
async def test_paths_without_a_route(app: LeanQuart, path: str, status: int) -> None:
    assert (await app.test_client().get(path)).status_code == status
