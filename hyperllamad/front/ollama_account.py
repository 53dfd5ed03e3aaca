"""The native routes about an account and the cloud: there is neither, said so that Ollama's CLI and apps stay quiet."""

from __future__ import annotations

from quart import Blueprint, Response

from hyperllamad.front import gojson, replies
from hyperllamad.front.finding import CloudDisabledError
from hyperllamad.front.ports import Services

_STATUS = gojson.encode({"cloud": {"disabled": True, "source": "config"}})
_RECOMMENDATIONS = gojson.encode({"recommendations": []})


class OllamaAccountRoutes:
    """Answers that are always the same."""

    def __init__(self, services: Services) -> None:
        del services  # nothing is asked of anybody

    def blueprint(self) -> Blueprint:
        routes = Blueprint("ollama_account", __name__)
        routes.add_url_rule("/api/me", view_func=self.me, methods=["POST"])
        routes.add_url_rule("/api/signout", "signout", view_func=self.signout, methods=["POST"])
        routes.add_url_rule("/api/user/keys/<key>", "drop_key", view_func=self.drop_key, methods=["DELETE"])
        routes.add_url_rule("/api/status", view_func=self.status, methods=["GET"])
        experimental = "/api/experimental"
        routes.add_url_rule(f"{experimental}/web_search", view_func=self.web_search, methods=["POST"])
        routes.add_url_rule(f"{experimental}/web_fetch", view_func=self.web_fetch, methods=["POST"])
        routes.add_url_rule(f"{experimental}/model-recommendations", view_func=self.recommendations, methods=["GET"])
        return routes

    async def me(self) -> Response:
        """Without a `signin_url`: there is nowhere to sign in."""
        return replies.error("unauthorized", 401)

    async def signout(self) -> Response:
        return replies.error("you are not currently signed in", 401)

    async def drop_key(self, key: str) -> Response:
        """Another address of signout; no key is known here."""
        del key
        return await self.signout()

    async def status(self) -> Response:
        return replies.json(_STATUS)

    async def web_search(self) -> Response:
        raise CloudDisabledError("web search is unavailable")

    async def web_fetch(self) -> Response:
        raise CloudDisabledError("web fetch is unavailable")

    async def recommendations(self) -> Response:
        return replies.json(_RECOMMENDATIONS)
