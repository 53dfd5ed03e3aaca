"""Moments as Go writes them: RFC 3339 with up to nine fractional digits, trailing zeros cut.  Knows no route."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_NS = 1_000_000_000
_LONGEST = (2**63 - 1) / _NS  # seconds in Go's longest duration: how Ollama writes "for ever"


def utc(ns: int) -> bytes:
    """A moment (Unix nanoseconds) in UTC: 2026-11-21T19:29:36.004728396Z.  Called for every batch of tokens."""
    seconds, fraction = divmod(ns, _NS)
    if fraction % 10:
        return b"%s.%09dZ" % (_second(seconds), fraction)
    if fraction:
        return b"%s.%sZ" % (_second(seconds), (b"%09d" % fraction).rstrip(b"0"))
    return _second(seconds) + b"Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def local(moment: float) -> str:
    """A moment (Unix seconds; inf = for ever) in the server's zone, to the microsecond: ...36.5-05:00, or Z in UTC."""
    when = datetime.fromtimestamp(0, UTC) + timedelta(seconds=_finite(moment))
    text = when.astimezone().isoformat()
    if "." in text:
        head, _, tail = text.partition(".")
        fraction = tail[:6].rstrip("0")
        text = f"{head}.{fraction}{tail[6:]}" if fraction else head + tail[6:]
    return text.replace("+00:00", "Z")


def _finite(moment: float) -> float:
    return time.time() + _LONGEST if math.isinf(moment) else moment
