"""Vectors from an engine: asked for, put in order, made of length 1.  Knows OpenAI's embedding route, no dialect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import anyio.to_thread
import msgspec

from hyperllamad.core.errors import BadRequestError, EngineRefusedError
from hyperllamad.core.models import Kind
from hyperllamad.front import relay, rendering
from hyperllamad.front.ports import Upstream
from hyperllamad.front.request_scope import held

MARKS = 2  # tokens that a model may put around a text


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Used(msgspec.Struct):
    prompt_tokens: int = 0


class _Reply(msgspec.Struct):
    data: list[_Item]
    usage: _Used = msgspec.field(default_factory=_Used)


_decode = msgspec.json.Decoder(_Reply).decode


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector for each text, in their order."""

    vectors: list[list[float]]
    prompt_tokens: int


async def embed(upstream: Upstream, texts: Sequence[str], *, dimensions: int = 0) -> Embedded:
    """`dimensions` > 0 cuts the vectors; they have length 1 either way.  Raises HyperLlamaError."""
    if not texts:
        return Embedded([], 0)
    raw = await relay.ask_whole(upstream, Kind.EMBED, {"input": list(texts), "encoding_format": "float"}, held())
    # Beside the loop: a batch of five hundred texts is two million numbers, half a second of arithmetic.
    found = await anyio.to_thread.run_sync(partial(_read, raw, upstream.engine.title, dimensions))
    if len(found.vectors) != len(texts):
        title = upstream.engine.title
        raise relay.EngineFaultError(f"{title} gave {len(found.vectors)} vectors for {len(texts)} texts")
    return found


def _read(raw: bytes, title: str, dimensions: int) -> Embedded:
    """An engine's answer; raises EngineFaultError."""
    try:
        reply = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as unreadable:
        raise relay.EngineFaultError(f"{title} sent what cannot be read: {unreadable}") from None
    items = sorted(reply.data, key=lambda item: item.index)
    return Embedded([_of_length_1(item.embedding, dimensions) for item in items], reply.usage.prompt_tokens)


async def embed_fitting(
    upstream: Upstream, texts: Sequence[str], *, dimensions: int = 0, truncate: bool = True
) -> Embedded:
    """Like `embed`, but texts that are too long are cut at their end, or refused if they may not be (BadRequestError).

    Tokens are only counted once the engine has refused, so that texts that fit cost nothing.
    """
    try:
        return await embed(upstream, texts, dimensions=dimensions)
    except EngineRefusedError:
        shorter = [await _shortened(upstream, text) for text in texts]
        if shorter == list(texts):
            raise
    if not truncate:
        raise BadRequestError("the input length exceeds the context length")
    return await embed(upstream, shorter, dimensions=dimensions)


async def _shortened(upstream: Upstream, text: str) -> str:
    """As much of the beginning as the model can take; all of it where the engine cannot count tokens."""
    room = upstream.settings.context - MARKS
    while (ids := await rendering.text_ids(upstream, text)) and len(ids) > room:
        # By characters: token ids would lose what the model puts around a text.  A few rounds are enough.
        text = text[: min(len(text) - 1, len(text) * room // len(ids))]
    return text


def _of_length_1(vector: list[float], dimensions: int) -> list[float]:
    if 0 < dimensions < len(vector):
        vector = vector[:dimensions]
    length = math.sqrt(math.fsum(x * x for x in vector))
    return [x / length for x in vector] if length else vector
