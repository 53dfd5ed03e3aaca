"""Go durations ("1h30m", "-1", "0.5s"), because Ollama's keep_alive and its environment speak them."""

from __future__ import annotations

import math
import re

from hyperllamad.core.errors import BadRequestError

FOREVER = math.inf
LONGEST = (2**63 - 1) / 1e9  # seconds; Go counts nanoseconds in 64 bits

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TERM = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")


def parse(text: str) -> float:
    """Seconds in a Go duration; raises BadRequestError in Go's own words (time.ParseDuration)."""
    body, sign = text, 1.0
    if body[:1] in {"+", "-"}:
        sign, body = (-1.0 if body[0] == "-" else 1.0), body[1:]
    if body == "0":
        return 0.0
    seconds, at = 0.0, 0
    while at < len(body):
        term = _TERM.match(body, at)
        if term is None:
            break
        number, unit = term.groups()
        if not unit:
            raise BadRequestError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise BadRequestError(f'time: unknown unit "{unit}" in duration "{text}"')
        seconds += float(number) * _UNITS[unit]
        at = term.end()
    if not body or at < len(body) or seconds > LONGEST:
        raise BadRequestError(f'time: invalid duration "{text}"')
    return sign * seconds


def keep_alive(value: object) -> float | None:
    """Seconds a model stays loaded, from a keep_alive field; FOREVER for a negative one, None when not given.

    Numbers are seconds, strings Go durations; raises BadRequestError in Ollama's words (api/types.go, Duration).
    """
    if value is None:
        return None
    if isinstance(value, bool):
        raise BadRequestError("Unsupported type: 'bool'")
    if isinstance(value, (int, float)):
        seconds = min(value, LONGEST)  # before float(), which a number of 400 digits does not fit into
    elif isinstance(value, str):
        seconds = parse(value)
    else:
        kind = "[]interface {}" if isinstance(value, list) else "map[string]interface {}"
        raise BadRequestError(f"Unsupported type: '{kind}'")
    return FOREVER if seconds < 0 or seconds >= LONGEST else float(seconds)


def show(seconds: float) -> str:
    """For people: 4m30s, 2h, forever."""
    if seconds == FOREVER:
        return "forever"
    whole = round(seconds)
    if whole < 1:
        return f"{seconds:.1f}s"
    parts = ((whole // 3600, "h"), (whole % 3600 // 60, "m"), (whole % 60, "s"))
    return "".join(f"{n}{unit}" for n, unit in parts if n)
