"""One HTTP request from its first to its last moment: what it holds, and what is told of it afterwards.

The ASGI call owns what a request holds (its lease, the engine's response): everything is released when the call ends,
however it ends.  A handler or the generator of its body must not own them: a body that was never started runs no
`finally`, and one request in ten that hang up early would leak its lease.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field

from hyperllamad.front.asgi import App, Message, Receive, Scope, Send
from hyperllamad.front.ports import Meanwhile, Upstream
from hyperllamad.telemetry import Metrics, fields

log = logging.getLogger(__name__)

CLIENT_GONE = 499  # nobody sees this status but the log and the metrics; nginx began it, Ollama uses it too


@dataclass(slots=True)
class Record:
    """What is known of a request; routes fill it in, RequestScope tells it at the end.  Times: perf_counter_ns."""

    arrived: int = field(default_factory=time.perf_counter_ns)
    route: str = "other"  # the rule of the route, so that metrics stay bounded
    model: str = ""
    engine: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token: int = 0  # when it came; 0 = it has not
    error: str = ""
    streaming: bool = False  # a stream was about to begin; Ollama gives errors from there on another content type
    another: Callable[[], Awaitable[Upstream]] | None = None  # engine like the one it has, should that one die
    meanwhile: Meanwhile | None = None  # to be done once, while the engine that was asked has not answered yet
    begun: Callable[[], None] | None = None  # to be done once the engine has taken the request in, or does not tell
    wanted: Callable[[], bool] | None = None  # somebody else waits for the engine it has
    unread: float = 0.0  # seconds its client may take nothing of the answer while that is so; 0 = any number
    inference: bool = False  # worth a line in the log
    status: int = 0
    finished: bool = False
    client: str = ""  # who asks: the name of the API key, else the address
    keep_body: bool = False  # it is read twice
    weight: float = 1.0  # of that client's turns, when requests wait
    headers: dict[str, str] = field(default_factory=dict)  # what the response says beside its body, error or not
    admit: Callable[[], Callable[[], None]] | None = None  # before an engine is asked for; gives what ends it


_current: ContextVar[tuple[AsyncExitStack, Record]] = ContextVar("current")


def held() -> AsyncExitStack:
    """What the current request holds."""
    return _current.get()[0]


def record() -> Record:
    """What is known of the current request."""
    return _current.get()[1]


def begun() -> None:
    """The engine has taken the current request in, or will not tell when it has."""
    if (told := record().begun) is not None:
        told()


def admit() -> None:
    """The current request will use an engine: counts against its client's limits once, however often it asks.

    Raises TooManyRequestsError.
    """
    told = record()
    if told.admit is not None:
        ends, told.admit = told.admit(), None
        held().callback(ends)


class RequestScope:
    """The outermost layer: holds, measures and tells."""

    def __init__(self, inner: App, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._inner(scope, receive, send)
        if scope["type"] != "http":  # no route is a WebSocket
            return await send({"type": "websocket.close", "code": 1000})
        stack, told = AsyncExitStack(), Record(client=(scope.get("client") or ("",))[0])

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                told.finished = True

        before = _current.set((stack, told))
        try:
            async with stack:
                await self._inner(scope, receive, watched)
        finally:
            self._tell(scope, told)
            _current.reset(before)
            # They hold this record, which would stay until Python looks for circles.
            told.another = told.begun = told.wanted = told.meanwhile = None

    def _tell(self, scope: Scope, told: Record) -> None:
        seconds = (time.perf_counter_ns() - told.arrived) / 1e9
        status = told.status if told.finished or told.status >= 400 else CLIENT_GONE
        self._metrics.request(told.route, status, seconds)
        first = (told.first_token - told.arrived) / 1e9 if told.first_token else None
        if told.inference and told.model:
            self._metrics.tokens(told.model, prompt=told.prompt_tokens, completion=told.completion_tokens)
            if first is not None:
                self._metrics.first_token(told.model, first)
        failed = status >= 500 or (told.error and told.inference)
        log.log(
            logging.WARNING if failed else logging.INFO if told.inference else logging.DEBUG,
            "request",
            extra=fields(
                method=scope["method"],
                path=scope["path"],
                status=status,
                model=told.model or None,
                engine=told.engine or None,
                prompt_tokens=told.prompt_tokens or None,
                tokens=told.completion_tokens or None,
                ttft=first,
                duration=seconds,
                client=told.client or None,
                left=None if told.finished else "early",
                error=told.error or None,
            ),
        )
