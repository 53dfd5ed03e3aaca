"""JSON as Go's encoding/json writes it: HTML characters escaped, floats in Go's form, maps in key order.

Clients of Ollama never see the difference until one compares bytes; this file is where it is kept.  Knows no route.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode

# <, >, & and the two line separators of JavaScript; outside of strings JSON has none of them.
_UNSAFE = re.compile(rb"[<>&]|\xe2\x80[\xa8\xa9]")
_search = _UNSAFE.search
_ESCAPED = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    b"\xe2\x80\xa8": b"\\u2028",
    b"\xe2\x80\xa9": b"\\u2029",
}


def string(text: str) -> bytes:
    """A JSON string, quotes included.  Called for every token, so the common case is two C calls."""
    data = _encode(text)
    if _search(data) is None:
        return data
    return _UNSAFE.sub(_escape, data)


def encode(value: Any) -> bytes:
    """A Struct or plain data.  Floats inside must already be `number`s: `plain` makes them so."""
    return _UNSAFE.sub(_escape, _encode(value))


def _escape(found: re.Match[bytes]) -> bytes:
    return _ESCAPED[found[0]]


def number(value: float) -> msgspec.Raw:
    """A float64 the way Go writes it: 1 for 1.0, 0.00001, 1e-7, 1e+21."""
    shortest = repr(value)
    size = abs(value)
    if size != 0 and (size < 1e-6 or size >= 1e21):
        return msgspec.Raw(re.sub(r"e-0(\d)$", r"e-\1", shortest).encode())
    if "e" in shortest:
        shortest = format(Decimal(shortest), "f")
    return msgspec.Raw(shortest.removesuffix(".0").encode())


def plain(value: Any) -> Any:
    """`value` with every float replaced by its `number` and every map in key order, as Go writes a map."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
