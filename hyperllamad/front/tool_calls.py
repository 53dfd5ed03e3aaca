"""Tool calls put together from the pieces an engine streams.  Knows the pieces, no dialect."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hyperllamad.front.engine_wire import ToolCallDelta

_object = msgspec.json.Decoder(dict[str, Any]).decode
_ALPHABET = string.ascii_lowercase + string.digits


@dataclass(slots=True)
class Call:
    """A call the model wants made; `arguments` is the JSON text as the model wrote it."""

    id: str = ""
    name: str = ""
    arguments: str = ""


def read(calls: Iterable[Call]) -> tuple[list[tuple[Call, dict[str, Any]]], str]:
    """The calls with their arguments, and the text of those whose arguments are no JSON object.

    A model can write anything where arguments belong; what is no call is shown as what it is: text.
    """
    good: list[tuple[Call, dict[str, Any]]] = []
    spoken: list[str] = []
    for call in calls:
        try:
            good.append((call, _object(call.arguments or "{}")))
        except (msgspec.DecodeError, UnicodeError):
            spoken.append(f"{call.name}({call.arguments})")
    return good, "\n".join(spoken)


class ToolCalls:
    """Collects pieces; `take` hands out the calls when the answer is finished."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}

    def add(self, pieces: Sequence[ToolCallDelta]) -> None:
        for piece in pieces:
            call = self._calls.setdefault(piece.index, Call())
            call.id = call.id or piece.id or ""
            if piece.function is not None:
                call.name += piece.function.name or ""
                call.arguments += piece.function.arguments or ""

    def take(self) -> list[Call]:
        """The calls in order, each with an id (Ollama's form where the engine gave none)."""
        calls = [call for _, call in sorted(self._calls.items())]
        self._calls.clear()
        for call in calls:
            call.id = call.id or "call_" + "".join(secrets.choice(_ALPHABET) for _ in range(8))
        return calls
