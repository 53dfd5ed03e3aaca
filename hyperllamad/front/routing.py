"""What a path and a method lead to when no route does: Ollama's 404, 405, 301 and 307, to the letter.

Ollama's router (gin) knows the exact methods of a route, cleans a path and takes a trailing slash off; werkzeug's
would add HEAD and OPTIONS and redirect otherwise, so its helpfulness is switched off here.
"""

from __future__ import annotations

import html
import posixpath
from typing import Any
from urllib.parse import quote

from quart import Quart, Response, request
from quart.routing import QuartRule
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map

from hyperllamad.front.asgi import Headers

_METHODS = ("HEAD", "GET", "POST", "DELETE")  # in the order Ollama's Allow header names them


class ExactRule(QuartRule):
    """A route with the methods it was given and no others."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.methods = set(options["methods"])


class Routes:
    """Answers for an app's url_map; `install` puts them in place before the first route is added."""

    def __init__(self, app: Quart) -> None:
        self._map: Map = app.url_map

    @classmethod
    def install(cls, app: Quart) -> Routes:
        app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
        app.url_rule_class = ExactRule
        app.url_map.strict_slashes = True
        app.url_map.merge_slashes = False
        routes = cls(app)
        app.register_error_handler(NotFound, routes.not_found)
        app.register_error_handler(MethodNotAllowed, routes.not_allowed)
        return routes

    def methods(self, path: str) -> tuple[str, ...]:
        """The methods of the route at exactly `path`; none when there is no route."""
        adapter = self._map.bind("")
        return tuple(method for method in _METHODS if adapter.test(path, method))

    def allow_header(self, path: str, method: str) -> Headers:
        """Allow, for a known path asked with a method it has not: Ollama sets it before anything else is decided."""
        known = self.methods(path)
        if not known or method in known:
            return ()
        return ((b"allow", ", ".join(known).encode()),)

    async def not_found(self, _: Exception) -> Response:
        path, method = request.path, request.method
        clean = posixpath.normpath("/" + path.lstrip("/"))
        if clean != path and method in self.methods(clean):
            return _redirect(clean, method)
        return _text("404 page not found", 404)

    async def not_allowed(self, _: Exception) -> Response:
        response = _text("405 method not allowed", 405)
        response.headers["Allow"] = ", ".join(self.methods(request.path))
        return response


def _text(body: str, status: int) -> Response:
    # Ollama names no charset here.
    return Response(body, status, content_type="text/plain")


def _redirect(path: str, method: str) -> Response:
    location = quote(path)
    if request.query_string:
        location += "?" + request.query_string.decode("latin-1")
    if method not in {"GET", "HEAD"}:
        response = Response(b"", 307)
        del response.headers["Content-Type"]  # there is no body that could have a type
    else:
        body = f'<a href="{html.escape(location)}">Moved Permanently</a>.\n\n'
        response = Response(body, 301, content_type="text/html; charset=utf-8")
    response.headers["Location"] = location
    return response
