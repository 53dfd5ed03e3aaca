"""Routes about the server itself: the heartbeat, the version clients check, health and metrics.

`/api/version` says which Ollama this server behaves like, because clients compare it with the version they need; our
own version is in the `Server` header of every response and in `/health`.
"""

from __future__ import annotations

from quart import Blueprint, Response

from hyperllamad.front import gojson, openapi, replies
from hyperllamad.front.ports import Services

OLLAMA_VERSION = "0.33.0"  # the one the specification was taken from; dotted integers, Open WebUI insists


class MetaRoutes:
    """The routes that need no model."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def blueprint(self) -> Blueprint:
        routes = Blueprint("meta", __name__)
        routes.add_url_rule("/", view_func=self.root, methods=["GET", "HEAD"])
        routes.add_url_rule("/api/version", view_func=self.version, methods=["GET", "HEAD"])
        routes.add_url_rule("/health", view_func=self.health, methods=["GET", "HEAD"])
        routes.add_url_rule("/openapi.json", view_func=self.openapi, methods=["GET"])
        routes.add_url_rule("/metrics", view_func=self.metrics, methods=["GET"])
        return routes

    async def root(self) -> Response:
        return Response("Ollama is running", content_type="text/plain; charset=utf-8")

    async def version(self) -> Response:
        return replies.json(gojson.encode({"version": OLLAMA_VERSION}))

    async def health(self) -> Response:
        """200 while requests are taken, 503 while shutting down; says nothing of single models."""
        closing = self._services.supervisor.closing
        status = {"status": "closing" if closing else "ok", "version": self._services.version}
        return replies.json(gojson.encode(status), 503 if closing else 200)

    async def openapi(self) -> Response:
        return replies.json(openapi.document(self._services.version), content_type="application/json")

    async def metrics(self) -> Response:
        return Response(self._services.metrics.text(), content_type=self._services.metrics.content_type)
