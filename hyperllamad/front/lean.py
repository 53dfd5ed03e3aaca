"""Quart without what this server never uses and every request would pay for: sessions, and routes that depend on the
host; and what it finds out again and again is found out once.

Uses only what Quart lets an application replace.  Must not know a route.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from quart import Quart, Request, Response, request
from quart.sessions import NullSession, SessionInterface
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.routing import MapAdapter

_NO_SESSION = NullSession()


class _Request(Request):
    @cached_property
    def blueprints(self) -> list[str]:
        """As Quart finds them; it asks three times, and always after the route is known."""
        return super().blueprints


class _NoSessions(SessionInterface):
    async def open_session(self, *_: object) -> NullSession:
        """One for all: nobody writes to it."""
        return _NO_SESSION


class LeanQuart(Quart):
    """Otherwise as Quart is."""

    request_class = _Request
    session_interface = _NoSessions()  # type: ignore[assignment]  # Quart means any SessionInterface

    def __init__(self, *args: Any, **options: Any) -> None:
        self._coroutines: dict[Any, Any] = {}
        super().__init__(*args, **options)

    def ensure_async(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """What Quart makes of it, found out once for each handler."""
        found = self._coroutines.get(func)
        if found is None:
            found = self._coroutines[func] = super().ensure_async(func)
        return found

    async def finished(self, response: Response) -> Response:
        """What the functions of `after_request` make of a response to the current request.

        As Quart asks them, whose own way to them is another in 0.23.
        """
        for name in (*request.blueprints, None):
            for function in reversed(self.after_request_funcs[name]):
                response = await self.ensure_async(function)(response)
        return response

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Of a request: without its host, which no route depends on and whose name Quart would encode."""
        if request is None:
            return super().create_url_adapter(None)
        return MapAdapter(self.url_map, "", "/", "", request.scheme, request.path, request.method)
