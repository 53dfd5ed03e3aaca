"""The front door, put together: Quart with its routes, and around it the layers that look at every request first.

From the outside in: RequestScope (owns what a request holds, tells of it), Cors, HostCheck, Intake, Quart.  A new
dialect is a file with a class like OllamaRoutes and a line in DIALECTS.
"""

from __future__ import annotations

import logging
from typing import cast

from quart import Quart, Response, request
from quart.wrappers.response import DataBody
from werkzeug.exceptions import HTTPException

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.front import auto_pull, heads, replies
from hyperllamad.front.anthropic import AnthropicRoutes
from hyperllamad.front.asgi import App
from hyperllamad.front.cors import Cors, Origins
from hyperllamad.front.doorkeeper import Doorkeeper
from hyperllamad.front.hosts import HostCheck, is_loopback
from hyperllamad.front.intake import Intake
from hyperllamad.front.lean import LeanQuart
from hyperllamad.front.meta import MetaRoutes
from hyperllamad.front.ollama import OllamaRoutes
from hyperllamad.front.ollama_account import OllamaAccountRoutes
from hyperllamad.front.ollama_embed import OllamaEmbedRoutes
from hyperllamad.front.ollama_models import OllamaModelRoutes
from hyperllamad.front.ollama_store import OllamaStoreRoutes
from hyperllamad.front.ollama_tokens import OllamaTokenRoutes
from hyperllamad.front.openai import OpenAIRoutes
from hyperllamad.front.openai_models import OpenAIModelRoutes
from hyperllamad.front.ports import Services
from hyperllamad.front.request_scope import RequestScope, held, record
from hyperllamad.front.rerank import RerankRoutes
from hyperllamad.front.responses import ResponsesRoutes
from hyperllamad.front.routing import Routes

log = logging.getLogger(__name__)

DIALECTS = (
    MetaRoutes,
    OllamaRoutes,
    OllamaModelRoutes,
    OllamaStoreRoutes,
    OllamaEmbedRoutes,
    OllamaTokenRoutes,
    OllamaAccountRoutes,
    OpenAIRoutes,
    OpenAIModelRoutes,
    RerankRoutes,
    ResponsesRoutes,
    AnthropicRoutes,
)
LARGEST_BODY = 256 * 1024 * 1024  # bytes; a chat with many images fits, a mistake does not fill the memory


def create_app(services: Services) -> App:
    """The ASGI app for port 11434."""
    config = services.config
    app = quart_app(services)
    routes = Routes(app)
    inner: App = Intake(cast("App", app))
    if is_loopback(config.server.address[0]):
        inner = HostCheck(inner, routes.allow_header)
    return RequestScope(Cors(inner, Origins(config.server.origins), routes.allow_header), services.metrics)


def quart_app(services: Services) -> Quart:
    """Only the routes, for tests that need Quart itself."""
    app = LeanQuart("hyperllamad", static_folder=None)
    Routes.install(app)
    app.asgi_http_class = heads.Connection
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.config["BODY_TIMEOUT"] = None  # see body.received
    app.config["RESPONSE_TIMEOUT"] = None  # an answer may stream for hours
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.register_error_handler(HyperLlamaError, _failure)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _our_fault)
    server = f"hyperllamad/{services.version}"

    @app.before_request
    async def note_route() -> None:
        if (rule := request.url_rule) is not None:
            record().route = rule.rule

    if services.keys is not None and services.keys.required:
        app.before_request(Doorkeeper(services.keys, services.quotas).look)

    @app.after_request
    async def say_who(response: Response) -> Response:
        response.headers["Server"] = server
        for name, value in record().headers.items():
            response.headers[name] = value
        return response

    @app.after_request
    async def let_go(response: Response) -> Response:
        """Of the engine, once all of an answer is here: its client may take minutes to read it."""
        if isinstance(response.response, DataBody):
            await held().pop_all().aclose()
        return response

    for dialect in DIALECTS:
        app.register_blueprint(dialect(services).blueprint())
    auto_pull.install(app, services)
    return app


async def _failure(found: HyperLlamaError) -> Response:
    record().error = replies.text_of(found)
    return replies.failure(found, replies.BARE_JSON if record().streaming else replies.JSON)


async def _http_error(found: HTTPException) -> Response:
    """What Quart itself refuses: a body that is too large or never ends."""
    return replies.error((found.description or found.name).lower(), found.code or 500)


async def _our_fault(fault: Exception) -> Response:
    log.error("a request failed", exc_info=fault)
    record().error = replies.OUR_FAULT
    return replies.error(replies.OUR_FAULT, 500)
