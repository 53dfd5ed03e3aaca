"""GET /v1/models and /v1/models/{model}, POST /v1/embeddings: what is here, and what texts look like as vectors."""

from __future__ import annotations

import base64
import struct
from functools import partial
from typing import Any

import anyio.to_thread
from quart import Blueprint, Response

from hyperllamad.core.errors import BadRequestError, ModelNotFoundError, UnsupportedError
from hyperllamad.core.models import Capability, Model
from hyperllamad.core.names import ModelName
from hyperllamad.front import compat_body, embedding, finding, gojson, openai_errors, relay, replies
from hyperllamad.front.embedding import Embedded
from hyperllamad.front.finding import NotFoundError
from hyperllamad.front.openai_requests import EMBEDDING, EmbeddingRequest
from hyperllamad.front.ports import Services, Upstream
from hyperllamad.front.request_scope import record

_FORMATS = {"", "float", "base64"}


class OpenAIModelRoutes:
    """The routes that generate nothing."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def blueprint(self) -> Blueprint:
        routes = Blueprint("openai_models", __name__)
        openai_errors.install(routes)
        routes.add_url_rule("/v1/models", view_func=self.models, methods=["GET"])
        routes.add_url_rule("/v1/models/<model>", view_func=self.model, methods=["GET"])
        routes.add_url_rule("/v1/embeddings", view_func=self.embeddings, methods=["POST"])
        return routes

    async def models(self) -> Response:
        items = [_item(model, model.name.short) for model in self._services.catalog.list()]
        return _reply(gojson.encode({"object": "list", "data": items}))

    async def model(self, model: str) -> Response:
        """The id is the name as it was asked for."""
        try:
            return _reply(gojson.encode(_item(finding.find(self._services.catalog, model), model)))
        except ModelNotFoundError:  # told by the name in full, as show does
            raise ModelNotFoundError(ModelName.parse(model).short) from None

    async def embeddings(self) -> Response:
        asked, texts = await compat_body.receive(EMBEDDING, _with_texts)
        if not asked.model:
            raise ModelNotFoundError("")
        model = self._embedding(asked)
        if Capability.EMBEDDING not in model.capabilities:
            hint = "ask a model that has the capability embedding"
            raise UnsupportedError(f'"{asked.model}" does not support embeddings', hint=hint)
        record().inference = True

        async def embed(upstream: Upstream) -> Embedded:
            return await embedding.embed_fitting(upstream, texts, dimensions=asked.dimensions)

        found = await relay.with_engine(self._services, model, asked.keep_alive, embed)
        record().prompt_tokens = found.prompt_tokens
        # Beside the loop, as the vectors were read: there may be millions of numbers.
        return _reply(await anyio.to_thread.run_sync(partial(_told, asked, found)))

    def _embedding(self, asked: EmbeddingRequest) -> Model:
        try:
            model = finding.find(self._services.catalog, asked.model)
        except ModelNotFoundError:
            raise NotFoundError(f'model "{asked.model}" not found, try pulling it first') from None
        record().model = model.name.short
        return model


def _told(asked: EmbeddingRequest, found: Embedded) -> bytes:
    shown = _as_base64 if asked.encoding_format == "base64" else _as_numbers
    items = [
        {"object": "embedding", "embedding": shown(vector), "index": index}
        for index, vector in enumerate(found.vectors)
    ]
    usage = {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens}
    return gojson.encode({"object": "list", "data": items, "model": asked.model, "usage": usage})


def _reply(body: bytes) -> Response:
    return replies.json(body + b"\n", content_type=replies.BARE_JSON)


def _item(model: Model, name: str) -> dict[str, Any]:
    item = {"id": name, "object": "model", "created": int(model.modified_at), "owned_by": model.name.namespace}
    if length := model.context or model.context_length:
        item["context_length"] = length  # more than Ollama tells: clients cannot know it otherwise
    return item


def _with_texts(request: EmbeddingRequest) -> tuple[EmbeddingRequest, list[str]]:
    """The texts to embed; raises BadRequestError in Ollama's words."""
    if request.encoding_format not in _FORMATS:
        supported = "Supported values: ['float', 'base64']."
        raise BadRequestError(f"Invalid value for 'encoding_format' = {request.encoding_format}. {supported}")
    given = request.input
    texts = [given] if isinstance(given, str) else given
    if texts is None or texts == []:
        raise BadRequestError("invalid input")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadRequestError("invalid input type")
    return request, texts


def _as_numbers(vector: list[float]) -> list[float]:
    """Nine digits are what a float32 has; more would be made up."""
    return [float(f"{value:.9g}") for value in _float32(vector)]


def _as_base64(vector: list[float]) -> str:
    """Little-endian float32."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _float32(vector: list[float]) -> tuple[float, ...]:
    form = f"<{len(vector)}f"
    return struct.unpack(form, struct.pack(form, *vector))
