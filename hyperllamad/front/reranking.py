"""How relevant documents are to a query: asked of a model that judges pairs, told from the vectors of one that embeds.

Knows the engines' rerank route, no dialect.  Relevance is a number from 0 to 1 where a model judges, and the cosine of
the two vectors, from -1 to 1, where it embeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import anyio.to_thread
import msgspec

from hyperllamad.core.errors import UnsupportedError
from hyperllamad.core.models import Kind, Model
from hyperllamad.engines import bodies
from hyperllamad.front import embedding, relay
from hyperllamad.front.ports import Upstream
from hyperllamad.front.request_scope import held


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _Used(msgspec.Struct):
    total_tokens: int = 0


class _Reply(msgspec.Struct):
    results: list[_Result]
    usage: _Used = msgspec.field(default_factory=_Used)


_decode = msgspec.json.Decoder(_Reply).decode


@dataclass(frozen=True, slots=True)
class Ranked:
    """(index of the document, relevance), the most relevant first."""

    order: list[tuple[int, float]]
    tokens: int


async def rank(upstream: Upstream, model: Model, query: str, documents: Sequence[str]) -> Ranked:
    """Every document in order; `model` must rank or embed.  Raises HyperLlamaError."""
    if bodies.ranks(model):
        scores, tokens = await _judged(upstream, query, documents)
    else:
        found = await embedding.embed_fitting(upstream, [query, *documents])
        scores = await anyio.to_thread.run_sync(_cosines, found.vectors)  # 0.1 s for a thousand documents
        tokens = found.prompt_tokens
    order = sorted(enumerate(scores), key=lambda pair: (-pair[1], pair[0]))
    return Ranked(order, tokens)


def _cosines(vectors: Sequence[Sequence[float]]) -> list[float]:
    """Of the first with each of the others; all have length 1, so that the product is the cosine."""
    first, *others = vectors
    return [math.fsum(a * b for a, b in zip(first, other, strict=True)) for other in others]


def no_ranking(name: str) -> UnsupportedError:
    return UnsupportedError(f'"{name}" does not support rerank', hint="ask a reranker, or an embedding model")


async def _judged(upstream: Upstream, query: str, documents: Sequence[str]) -> tuple[list[float], int]:
    title = upstream.engine.title
    raw = await relay.ask_whole(upstream, Kind.RERANK, {"query": query, "documents": list(documents)}, held())
    try:
        reply = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as unreadable:
        raise relay.EngineFaultError(f"{title} sent what cannot be read: {unreadable}") from None
    found = {result.index: result.relevance_score for result in reply.results}
    if found.keys() != set(range(len(documents))):
        raise relay.EngineFaultError(f"{title} judged {len(found)} of {len(documents)} documents")
    between = (lambda score: score) if upstream.engine.bounded_scores else _sigmoid
    return [between(found[index]) for index in range(len(documents))], reply.usage.total_tokens


def _sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score)) if score >= 0 else 1 - 1 / (1 + math.exp(score))
