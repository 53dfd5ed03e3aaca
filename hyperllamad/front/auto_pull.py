"""`models.auto_pull`: a request for a model that is not here fetches it first, and is then answered as if it had been.

The request waits without a word: no dialect can tell a client that its answer will take minutes.  When the client
leaves, so does its interest in the download, which ends with its last watcher.  Knows routes, no dialect.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, cast

from quart import Quart

from hyperllamad.core.errors import HyperLlamaError, ModelNotFoundError, RepositoryNotFoundError
from hyperllamad.front.ports import Services
from hyperllamad.front.request_scope import record
from hyperllamad.telemetry import fields

log = logging.getLogger(__name__)

# The routes that use a model; those that only ask about one, or change one, fetch nothing.
USES = frozenset(
    {"/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/rerank", "/api/tokenize", "/api/detokenize"}
    | {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/rerank"}
    | {"/v1/messages", "/v1/messages/count_tokens"}
)

View = Callable[..., Awaitable[Any]]


def install(app: Quart, services: Services) -> None:
    """Put the fetching around the routes of `app` that use a model, where the configuration says so."""
    if not services.config.models.auto_pull:
        return
    for endpoint in {rule.endpoint for rule in app.url_map.iter_rules() if rule.rule in USES}:
        app.view_functions[endpoint] = _fetching(services, cast("View", app.view_functions[endpoint]))


def _fetching(services: Services, view: View) -> View:
    @wraps(view)
    async def run(*args: Any, **named: Any) -> Any:
        record().keep_body = True
        try:
            return await view(*args, **named)
        except HyperLlamaError as failure:
            missing = failure if isinstance(failure, ModelNotFoundError) else failure.__cause__
            if not isinstance(missing, ModelNotFoundError):
                raise
            if not await _pulled(services, missing.name):
                raise
        return await view(*args, **named)

    return run


async def _pulled(services: Services, name: str) -> bool:
    """False when there is nothing of that name to fetch; raises what else stands in the way of a pull."""
    log.info("fetching a model that was asked for", extra=fields(model=name))
    try:
        with await services.library.pull(name) as watch:
            async for _ in watch:
                pass
    except RepositoryNotFoundError as failure:
        log.info("there is none to fetch: %s", failure, extra=fields(model=name))
        return False
    return True
