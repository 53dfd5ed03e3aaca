"""POST /api/embed and the older POST /api/embeddings: a model's vectors for texts (spec 2.3 and 2.4)."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from typing import Any

import anyio.to_thread
import msgspec
from quart import Blueprint, Response

from hyperllamad.core.errors import BadRequestError, EngineRefusedError, ModelNotFoundError
from hyperllamad.core.models import Model
from hyperllamad.front import body, embedding, gojson, ollama_checks, ollama_options, relay, replies
from hyperllamad.front.embedding import Embedded
from hyperllamad.front.finding import NotFoundError
from hyperllamad.front.ports import Services, Upstream
from hyperllamad.front.request_scope import record
from hyperllamad.front.shapes import Shape, anything, boolean, integer, keep_alive, mapping, string


class _Asked(msgspec.Struct, kw_only=True):
    """What both routes have in common; `keep_alive` is seconds (inf = for ever), None = not said."""

    model: str = ""
    name: str = ""
    options: dict[str, Any] = {}
    keep_alive: float | None = None

    @property
    def asked_model(self) -> str:
        """The name as the client wrote it; `name` is taken wherever `model` is."""
        return self.model or self.name


class EmbedRequest(_Asked, kw_only=True):
    """POST /api/embed."""

    input: Any = None
    truncate: bool = True
    dimensions: int = 0

    def texts(self) -> list[str]:
        """The inputs; an empty text alone is none.  Raises BadRequestError."""
        found = self.input
        if found is None or found == "":
            return []
        texts = found if isinstance(found, list) else [found]
        if not all(isinstance(text, str) for text in texts):
            raise BadRequestError("invalid input type")
        return texts


class EmbeddingRequest(_Asked, kw_only=True):
    """POST /api/embeddings."""

    prompt: str = ""


_COMMON = {"model": string, "name": string, "options": mapping, "keep_alive": keep_alive}
EMBED = Shape("EmbedRequest", EmbedRequest, {**_COMMON, "input": anything, "truncate": boolean, "dimensions": integer})
EMBEDDING = Shape("EmbeddingRequest", EmbeddingRequest, {**_COMMON, "prompt": string})


class EmbedReply(msgspec.Struct, kw_only=True, omit_defaults=True):
    """POST /api/embed; durations are nanoseconds."""

    model: str
    embeddings: list[msgspec.Raw]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class OllamaEmbedRoutes:
    """Both routes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def blueprint(self) -> Blueprint:
        routes = Blueprint("ollama_embed", __name__)
        routes.add_url_rule("/api/embed", view_func=self.embed, methods=["POST"])
        routes.add_url_rule("/api/embeddings", view_func=self.embeddings, methods=["POST"])
        return routes

    async def embed(self) -> Response:
        asked = await body.receive(EMBED)
        texts = asked.texts()
        if not asked.asked_model:
            raise ModelNotFoundError("")

        async def serve(upstream: Upstream) -> Response:
            if not texts:
                return replies.json(gojson.encode(EmbedReply(model=asked.asked_model, embeddings=[])))
            granted = time.perf_counter_ns()
            found = await _embed(upstream, texts, asked.dimensions, truncate=asked.truncate)
            vectors = await anyio.to_thread.run_sync(_vectors, found)  # 0.1 s for a hundred thousand numbers
            arrived = record().arrived
            reply = EmbedReply(
                model=asked.asked_model,
                embeddings=vectors,
                total_duration=time.perf_counter_ns() - arrived,
                load_duration=granted - arrived,
                prompt_eval_count=found.prompt_tokens,
            )
            return replies.json(gojson.encode(reply))

        return await relay.with_engine(self._services, self._find(asked), asked.keep_alive, serve)

    async def embeddings(self) -> Response:
        asked = await body.receive(EMBEDDING)
        if not asked.asked_model:
            raise BadRequestError("model is required")

        async def serve(upstream: Upstream) -> Response:
            if not asked.prompt:
                return replies.json(b'{"embedding":[]}')
            try:
                found = await _embed(upstream, [asked.prompt], 0, truncate=True)
            except EngineRefusedError as refused:  # the newer route passes the engine's status on, this one does not
                raise EngineRefusedError(refused.message, status=500) from refused
            (vector,) = found.vectors
            # A float32 told in full, as Ollama tells it here.
            return replies.json(gojson.encode({"embedding": [gojson.number(x) for x in array("f", vector)]}))

        return await relay.with_engine(self._services, self._find(asked), asked.keep_alive, serve)

    def _find(self, asked: _Asked) -> Model:
        """Raises OptionTypeError, too: no option means anything here, but a wrong one is told as everywhere."""
        name = asked.asked_model
        try:
            model = ollama_checks.find(self._services.catalog, name)
        except ModelNotFoundError as failure:
            raise NotFoundError(f'model "{name}" not found, try pulling it first') from failure
        record().model = model.name.short
        ollama_options.merge(model.parameters, asked.options)
        return model


async def _embed(upstream: Upstream, texts: Sequence[str], dimensions: int, *, truncate: bool) -> Embedded:
    """Vectors of length 1; raises BadRequestError when a text is too long and may not be cut."""
    record().inference = True
    found = await embedding.embed_fitting(upstream, texts, dimensions=dimensions, truncate=truncate)
    record().prompt_tokens = found.prompt_tokens
    return found


def _vectors(found: Embedded) -> list[msgspec.Raw]:
    return [msgspec.Raw(f"[{','.join(_float32(vector))}]".encode()) for vector in found.vectors]


def _float32(vector: Sequence[float]) -> list[str]:
    """The numbers as texts that give the same float32 again: 8 digits, or the 9 that are always enough."""
    exact = array("f", vector)
    texts = [f"{x:.8g}" for x in exact]
    again = array("f", map(float, texts))
    if again == exact:
        return texts
    return [text if y == x else f"{x:.9g}" for text, x, y in zip(texts, exact, again, strict=True)]
