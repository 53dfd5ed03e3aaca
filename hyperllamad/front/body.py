"""The bytes of a request's body: received, parsed as Go parses them, and given to a Shape.

Owns the limits and the tolerance (content type ignored, bytes behind the first value ignored).  Knows no field.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import anyio.to_thread
import msgspec
from quart import request
from werkzeug.exceptions import RequestTimeout

from hyperllamad.core.errors import BadRequestError
from hyperllamad.front import gosyntax, request_scope
from hyperllamad.front.shapes import Reading, Shape

T = TypeVar("T")

PATIENCE = 300  # seconds for all of a body to arrive
LARGE = 64 * 1024  # bytes; to say what is wrong with so many takes up to 50 ms

_decode = msgspec.json.Decoder().decode


async def receive(shape: Shape[T]) -> T:
    """The current request's body, when all of it has come; raises BadRequestError, and RequestTimeout in the end."""
    raw = await received()
    return await aside(lambda: read(raw, shape), large=len(raw) > LARGE)


async def received() -> bytes:
    """The bytes of the current request's body; raises RequestTimeout.

    Not with Quart's BODY_TIMEOUT: that is asyncio.wait_for(), which on Python 3.11 forgets a cancellation that comes
    together with the end of the body, and the answer would be generated for a client that has gone.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            return cast("bytes", await request.get_data(cache=request_scope.record().keep_body))
    except TimeoutError:
        raise RequestTimeout from None


async def aside(work: Callable[[], T], *, large: bool) -> T:
    """What `work` makes of a body: of a `large` one in a thread, so that everybody else's streams go on meanwhile."""
    return await anyio.to_thread.run_sync(work) if large else work()


def read(raw: bytes, shape: Shape[T]) -> T:
    """The request in `raw`; raises BadRequestError with Go's text."""
    reading = Reading(shape.go_name)
    request = shape(_parse(raw), reading)
    if reading.failure is not None:
        raise reading.failure
    return request


def _parse(raw: bytes) -> Any:
    """The first JSON value of `raw`; raises BadRequestError."""
    try:
        return _not_too_deep(_value(raw), raw)
    except RecursionError:  # where a parser stops depends on the Python it runs in
        raise BadRequestError("exceeded max depth") from None


def _value(raw: bytes) -> Any:
    try:
        if _LONG.search(raw) is None:
            return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        if not raw.strip(b" \t\r\n"):
            raise BadRequestError("missing request body") from None
    first = raw[: gosyntax.value_end(raw)]
    # Sound JSON that msgspec refused or reads otherwise than Go: bytes behind it, text that is not Unicode (which Go
    # mends), a whole number that no float64 holds.
    text = _ESCAPE.sub(_mend, first.decode(errors="replace"))
    return json.loads(text, parse_float=_finite, parse_int=_whole)


def _not_too_deep(value: Any, raw: bytes) -> Any:
    """The value itself; raises BadRequestError where it would overflow the stack of whoever walks it.

    Go stops at 10,000 levels, this at 500: nobody sends either in good faith.
    """
    if raw.count(b"[") + raw.count(b"{") > _DEEPEST:
        level, depth = [value], 0
        while level := [child for node in level for child in _children(node)]:
            depth += 1
            if depth > _DEEPEST:
                raise BadRequestError("exceeded max depth")
    return value


def _children(node: Any) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


# As many digits as a number beyond every float64 has.  They may as well stand in a text, and then cost only time.
# Looked for where digits begin, or every digit of a long row of them would be a beginning.
_LONG = re.compile(rb"(?<![0-9])[0-9]{309}")


def _whole(literal: str) -> int:
    _finite(literal)
    return int(literal)


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise BadRequestError(f"json: cannot unmarshal number {literal} into Go value of type float64")
    return value


_DEEPEST = 500  # lists and objects within each other

# An escape; group 1 is half of a surrogate pair without the other half.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)")


def _mend(found: re.Match[str]) -> str:
    return "\\ufffd" if found[1] else found[0]
