"""What a request holds ends with its call, its own memory too."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import cast

import pytest

from hyperllamad.front import request_scope
from hyperllamad.front.asgi import Message, Receive, Scope, Send
from hyperllamad.front.ports import Upstream
from hyperllamad.telemetry import Metrics

SCOPE = cast("Scope", {"type": "http", "method": "POST", "path": "/api/chat", "state": {}})


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("fails", [False, True])
async def test_a_request_that_is_over_leaves_nothing_for_the_collector(*, fails: bool) -> None:
    held: list[weakref.ref[AsyncExitStack]] = []

    async def app(_: Scope, __: Receive, send: Send) -> None:
        stack, told = request_scope.held(), request_scope.record()
        held.append(weakref.ref(stack))

        async def another() -> Upstream:
            raise AssertionError((stack, told))

        told.another, told.wanted = another, lambda: told.finished
        if fails:
            raise ConnectionResetError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        raise AssertionError

    async def send(_: Message) -> None:
        pass

    try:
        await request_scope.RequestScope(app, Metrics())(dict(SCOPE), receive, send)
    except ConnectionResetError:
        assert fails
    assert [one() for one in held] == [None]
