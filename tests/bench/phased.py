"""hyperllamad with a stopwatch in it: `python -m tests.bench.phased ...` takes hyperllamad's own arguments.

For each request that reached an engine it appends a line of JSON to the file $HYPERLLAMA_BENCH_PHASES: the moments of
it, perf_counter_ns, which on Linux is one clock for all processes.  The functions that a request passes are wrapped
from outside, so the daemon itself stays as it is.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hyperllamad import __main__ as program
from hyperllamad.front import body, relay, request_scope
from hyperllamad.supervision import exchange
from hyperllamad.wire import Wire

VARIABLE = "HYPERLLAMA_BENCH_PHASES"
MOMENTS = ("arrived", "read", "wanted", "granted", "asking", "sent", "head", "first", "told")

_marks: ContextVar[dict[str, int] | None] = ContextVar("marks", default=None)


def mark(moment: str) -> None:
    """The first time that the current request came so far."""
    if (marks := _marks.get()) is not None:
        marks.setdefault(moment, time.perf_counter_ns())


def around(owner: Any, name: str, before: str, after: str) -> None:
    """Have the async function `owner.name` marked; "" = that side is not."""
    inner: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @functools.wraps(inner)
    async def marked(*args: Any, **kwargs: Any) -> Any:
        if before:
            mark(before)
        try:
            return await inner(*args, **kwargs)
        finally:
            if after:
                mark(after)

    setattr(owner, name, marked)


def marking(inner: Callable[..., Any], after: str) -> Callable[..., Any]:
    """`inner`, which waits for nothing, with its end marked."""

    def marked(*args: Any) -> Any:
        result = inner(*args)
        mark(after)
        return result

    return marked


def instrument(path: Path) -> None:
    around(body, "received", "", "read")
    around(relay, "lease", "wanted", "granted")
    around(relay, "_post", "asking", "head")
    exchange._send = marking(exchange._send, "sent")
    around(relay.EngineStream, "read", "", "first")
    around(Wire, "write", "", "told")
    file = path.open("a", buffering=1)
    call = request_scope.RequestScope.__call__

    async def marked(scope_: request_scope.RequestScope, scope: Any, receive: Any, send: Any) -> None:
        marks: dict[str, int] = {}
        _marks.set(marks)
        mark("arrived")

        async def told(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.body":
                mark("told")

        try:
            await call(scope_, scope, receive, told)
        finally:
            if "first" in marks:
                file.write(json.dumps(marks) + "\n")

    request_scope.RequestScope.__call__ = marked  # type: ignore[method-assign]


if __name__ == "__main__":
    if path := os.environ.get(VARIABLE):
        instrument(Path(path))
    sys.exit(program.main())
