"""A chat that is too long for the model's context made shorter; a context that was asked for held against what runs.

As in Ollama the oldest messages go, and system messages and the last message stay; unlike there it is said, in a header
of the response and in the log.  Nothing is counted before the engine has refused, so a chat that fits costs nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from hyperllamad.core.errors import EngineRefusedError, LoadFailedError, NoEngineError
from hyperllamad.core.models import Model
from hyperllamad.front import rendering
from hyperllamad.front.ports import Services, Upstream
from hyperllamad.front.request_scope import record
from hyperllamad.telemetry import fields

log = logging.getLogger(__name__)

DROPPED = "X-Hyperllama-Truncated"  # dropped=3, context=4096
CLAMPED = "X-Hyperllama-Num-Ctx"  # asked=32768, context=4096
_TO_ANSWER = 8  # one part in so many of the context is kept for the answer, since no engine here shifts its context
_MARGIN = 1.02  # on tokens that are guessed from characters

Body = dict[str, Any]
Message = dict[str, Any]
T = TypeVar("T")


async def ask(upstream: Upstream, body: Body, ask_engine: Callable[[Body], Awaitable[T]], *, drop: bool = True) -> T:
    """What `ask_engine` makes of a chat body, or of one with fewer messages where the engine says it is too long.

    Raises what `ask_engine` raises; its last refusal when nothing more may be dropped.
    """
    shown = body
    while True:
        try:
            answer = await ask_engine(shown)
        except EngineRefusedError as refusal:
            found = re.search(upstream.engine.overflow, refusal.message) if drop and "messages" in body else None
            if found is None:
                raise
            counted = next((int(group) for group in found.groups() if group), 0)
            fewer = await _fewer(upstream, shown, counted)
            if fewer is None:
                raise
            shown = shown | {"messages": fewer}
        else:
            if shown is not body:
                _say_dropped(upstream, len(body["messages"]) - len(shown["messages"]))
            return answer


@contextmanager
def context_for(services: Services, model: Model, wanted: int) -> Iterator[None]:
    """Where the configuration lets a model be loaded anew for a longer context, see to it; undone if it cannot be."""
    supervisor = services.supervisor
    if not services.config.models.grow_context or wanted <= supervisor.settings(model).context:
        yield
        return
    supervisor.grow(model, wanted)
    try:
        yield
    except (LoadFailedError, NoEngineError):
        supervisor.grow(model, 0)  # or every other request for the model would fail as well
        raise


def note_context(upstream: Upstream, asked: int) -> None:
    """Say so when a request asks for a longer context than the model runs with."""
    context = upstream.settings.context
    if asked > context:
        record().headers[CLAMPED] = f"asked={asked}, context={context}"
        where = fields(model=upstream.model.name.short, asked=asked, context=context)
        log.warning("a request asked for a longer context than the model runs with", extra=where)


def _say_dropped(upstream: Upstream, dropped: int) -> None:
    context = upstream.settings.context
    record().headers[DROPPED] = f"dropped={dropped}, context={context}"
    where = fields(model=upstream.model.name.short, dropped=dropped, context=context)
    log.warning("the oldest messages of a chat were left out: it is longer than the context", extra=where)


# -- what goes ---------------------------------------------------------------------------------------------------------


async def _fewer(upstream: Upstream, body: Body, counted: int) -> list[Message] | None:
    """The messages less as few of the oldest as need be; None when what must stay is all there is.

    `counted`: tokens of them all by the engine's word, for engines that have no tokenizer to ask; 0 = it did not say.
    """
    messages = body["messages"]
    context = upstream.settings.context
    room: int = context - min(body.get("max_tokens", context), context // _TO_ANSWER)
    per_character = (counted or 2 * context) / max(1, _characters(body, messages)) * _MARGIN

    async def fits(cut: int) -> bool:
        shorter = body | {"messages": _cut(messages, cut)}
        if (ids := await rendering.prompt_ids(upstream, shorter)) is not None:
            return len(ids) <= room
        return bool(_characters(shorter, shorter["messages"]) * per_character <= room)

    last = len(messages) - 1
    cuts = [cut for cut in range(1, last + 1) if len(_cut(messages, cut)) < len(messages)]
    # A turn of the user's is the best beginning, and the result of a tool the worst: its call would be missing.
    for good in ({"user"}, {"user", "assistant"}):
        if (cut := await _first([cut for cut in cuts if messages[cut]["role"] in good], fits)) is not None:
            return _cut(messages, cut)
    return _cut(messages, last) if cuts else None


async def _first(cuts: Sequence[int], fits: Callable[[int], Awaitable[bool]]) -> int | None:
    """The first cut that fits, by halves: the later the cut, the shorter the chat."""
    low, high = 0, len(cuts)
    while low < high:
        middle = (low + high) // 2
        if await fits(cuts[middle]):
            high = middle
        else:
            low = middle + 1
    return cuts[low] if low < len(cuts) else None


def _cut(messages: Sequence[Message], cut: int) -> list[Message]:
    return [*(message for message in messages[:cut] if message["role"] == "system"), *messages[cut:]]


def _characters(body: Body, messages: Sequence[Message]) -> int:
    return len(msgspec.json.encode([messages, body.get("tools")]))
