"""POST /v1/rerank: documents in the order of their relevance, in the form Jina and Cohere gave it.  Not Ollama's."""

from __future__ import annotations

from typing import Any

import msgspec
from quart import Blueprint, Response

from hyperllamad.core.errors import BadRequestError
from hyperllamad.engines import bodies
from hyperllamad.front import compat_body, finding, gojson, openai_errors, relay, replies, reranking
from hyperllamad.front.ports import Services, Upstream
from hyperllamad.front.request_scope import record
from hyperllamad.front.reranking import Ranked
from hyperllamad.front.shapes import Shape, anything, boolean, integer, keep_alive, string


class RerankRequest(msgspec.Struct, kw_only=True):
    """POST /v1/rerank; a document is a text, or an object with a `text`."""

    model: str = ""
    query: str = ""
    documents: Any = None
    top_n: int | None = None
    return_documents: bool = False
    keep_alive: float | None = None


RERANK = Shape(
    "RerankRequest",
    RerankRequest,
    {
        "model": string,
        "query": string,
        "documents": anything,
        "top_n": integer,
        "return_documents": boolean,
        "keep_alive": keep_alive,
    },
    package="openai",
)


class RerankRoutes:
    """One route."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def blueprint(self) -> Blueprint:
        routes = Blueprint("rerank", __name__)
        openai_errors.install(routes)
        routes.add_url_rule("/v1/rerank", view_func=self.rerank, methods=["POST"])
        return routes

    async def rerank(self) -> Response:
        asked, texts = await compat_body.receive(RERANK, _with_texts)
        if not asked.model:
            raise BadRequestError("model is required")
        model = finding.find(self._services.catalog, asked.model)
        record().model = model.name.short
        if not bodies.embeds(model):
            raise reranking.no_ranking(asked.model)
        record().inference = True

        async def rank(upstream: Upstream) -> Ranked:
            return await reranking.rank(upstream, model, asked.query, texts)

        ranked = await relay.with_engine(self._services, model, asked.keep_alive, rank)
        record().prompt_tokens = ranked.tokens
        items: list[dict[str, Any]] = [
            {"index": index, "relevance_score": gojson.number(score)} for index, score in ranked.order[: asked.top_n]
        ]
        if asked.return_documents:
            items = [item | {"document": {"text": texts[item["index"]]}} for item in items]
        usage = {"prompt_tokens": ranked.tokens, "total_tokens": ranked.tokens}
        data = {"object": "list", "model": asked.model, "results": items, "usage": usage}
        return replies.json(gojson.encode(data) + b"\n", content_type=replies.BARE_JSON)


def _with_texts(request: RerankRequest) -> tuple[RerankRequest, list[str]]:
    """The documents' texts; raises BadRequestError."""
    given = request.documents
    if not isinstance(given, list) or not given:
        raise BadRequestError("documents must be a list of at least one text")
    found = [item.get("text") if isinstance(item, dict) else item for item in given]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) < len(given):
        raise BadRequestError("each of the documents must be a text, or an object with a text")
    if not request.query:
        raise BadRequestError("query is required")
    if request.top_n is not None and request.top_n < 1:
        raise BadRequestError("top_n must be at least 1")
    return request, texts
