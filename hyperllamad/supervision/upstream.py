"""The way from a request to a ready engine over its Unix socket, and the reason when it ends.

Requests of clients go by post(), which is made for them; whoever looks after the engine has a session of aiohttp's.
Knows aiohttp; must not know the fleet or processes.
"""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable
from typing import Any

import aiohttp
import anyio
from aiohttp.connector import Connection

from hyperllamad.core.models import Model, Settings
from hyperllamad.engines.base import Engine
from hyperllamad.supervision import exchange
from hyperllamad.supervision.exchange import READ_BUFFER, Answer, Handler, Meanwhile

BASE = "http://engine"  # the host part goes nowhere: the connector always connects to the socket
CLOSING_TIME = 1.0  # seconds for connections that were aborted to be gone
CLOSING_PAUSE = 0.001  # seconds


class Connector(aiohttp.UnixConnector):
    """Connects to one Unix socket, and can end everything that is open at once.

    Every request gets a connection of its own: connecting costs about 0.1 ms, while a kept one may be closed by the
    engine (after 5 s in all three) at the moment it is used again, and occupies a thread of llama.cpp until then.
    One that nothing was asked on yet is not closed: there may be one of those for the next request.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, limit=0, force_close=True)
        self._spare: socket.socket | None = None
        self._connections: weakref.WeakSet[Connection | Handler] = weakref.WeakSet()
        self._refusal = ""

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """As aiohttp calls it; raises ClientConnectionError after cut()."""
        self._check()
        connection = await super().connect(*args, **kwargs)
        self._connections.add(connection)
        try:
            self._check()
        except aiohttp.ClientConnectionError:
            connection.close()
            raise
        return connection

    async def post(self, target: str, payload: bytes, meanwhile: Meanwhile | None = None) -> Answer:
        """See exchange.post; raises ClientConnectionError after cut()."""
        self._check()
        spare, self._spare = self._spare, None
        return await exchange.post(self._path, target, payload, self._opened, meanwhile=meanwhile, spare=spare)

    def connect_ahead(self) -> None:
        """Have a connection ready for the next request, where that takes no time."""
        if self._spare is None and not self._refusal:
            self._spare = exchange.ahead(self._path)

    def _opened(self, handler: Handler) -> None:
        self._connections.add(handler)
        self._check()

    def cut(self, cause: str) -> None:
        """Open streams end with a ClientError, new requests too.

        Not by closing the session: that leaves whoever waits for the next bytes of a stream waiting for ever (aiohttp
        3.14 forgets the stream before it hears that the connection is lost).
        """
        self._refusal = cause
        if self._spare is not None:
            self._spare.close()
            self._spare = None
        for connection in list(self._connections):
            if (transport := connection.transport) is not None:
                transport.abort()

    async def wait_cut(self) -> None:
        """Until every connection is lost, and whoever waited on one was told."""
        while any(connection.transport is not None for connection in self._connections):  # noqa: ASYNC110 - no event
            await anyio.sleep(CLOSING_PAUSE)

    def _check(self) -> None:
        if self._refusal:
            raise aiohttp.ClientConnectionError(self._refusal)


def open_session(connector: Connector) -> aiohttp.ClientSession:
    """A session that leaves time limits, encodings and cookies to whoever uses it; every URL begins with BASE.

    It knows no base itself: aiohttp before 3.11 takes no whole URL then, and joining costs with every request.
    """
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=READ_BUFFER,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class Work:
    """One request to an engine.  Whoever reads the answer keeps the fields true: by them a stuck engine is known."""

    __slots__ = ("_over", "pieces", "size", "waiting")

    def __init__(self, size: int, over: Callable[[Work], None]) -> None:
        self.size = size  # bytes of the request
        self.pieces = 0  # of the answer, that have come
        self.waiting = False  # for the engine to speak; not while the client is too slow to take what came
        self._over = over

    def end(self) -> None:
        """The request is over; again does nothing."""
        self._over(self)


class Upstream:
    """What a lease grants.  `session` must not be closed by its users; `name` is the model's name in the engine.

    When the engine ends, or its streams are cut off, requests fail with an aiohttp.ClientError.  Some time after the
    end the session is closed, which aiohttp answers with a RuntimeError; post() does not need it.
    """

    def __init__(self, engine: Engine, model: Model, settings: Settings, path: str) -> None:
        self.engine = engine
        self.model = model
        self.settings = settings
        self.name = model.digest[:12]
        self._connector = Connector(path)
        self.session = open_session(self._connector)
        self.died = anyio.Event()  # set when no process of the engine is left
        self.cut_on_purpose = False  # streams were ended because somebody wanted that, not because of a fault
        self.asleep = False  # told to sleep: it makes no tokens, and must not be asked for any
        self._cause = ""
        self._works: set[Work] = set()
        self._pieces = 0  # of answers that are over
        self._asked = anyio.Event()
        self._suspected = anyio.Event()

    async def post(self, path: str, payload: bytes, meanwhile: Meanwhile | None = None) -> Answer:
        """Ask for `path` with a body of JSON; `meanwhile` is done between that and the answer.

        Raises aiohttp.ClientError or OSError where no answer comes, and what `meanwhile` raises.
        """
        return await self._connector.post(path, payload, meanwhile)

    def begin(self, size: int) -> Work:
        """A request of that many bytes is sent; end() it however it ends."""
        work = Work(size, self._over)
        self._works.add(work)
        self._asked.set()
        return work

    def _over(self, work: Work) -> None:
        if work in self._works:
            self._works.remove(work)
            self._pieces += work.pieces
            if not self._works and self.engine.probe.ahead:  # among many requests one would gain nothing by it
                self._connector.connect_ahead()

    @property
    def requests(self) -> int:
        """Sent and not over."""
        return len(self._works)

    @property
    def expected(self) -> bool:
        """Somebody waits for the engine to speak."""
        return any(work.waiting for work in self._works)

    @property
    def pieces(self) -> int:
        """Of answers, that ever came."""
        return self._pieces + sum(work.pieces for work in self._works)

    @property
    def unread(self) -> int:
        """Bytes of the requests that nothing has come for yet."""
        return sum(work.size for work in self._works if work.waiting and not work.pieces)

    async def wait_asked(self) -> None:
        """Until there is a request."""
        while not self._works:
            self._asked = anyio.Event()
            await self._asked.wait()

    def suspect(self) -> None:
        """Something came that is no answer: the engine may not be well."""
        self._suspected.set()

    async def wait_suspected(self) -> None:
        """Until the next suspicion."""
        await self._suspected.wait()
        self._suspected = anyio.Event()

    def explain(self) -> str:
        """Why the engine ended, or why streams were cut off before; "" while there is nothing to explain."""
        return self._cause

    def cut(self, cause: str) -> None:
        """End every open stream and allow no new one."""
        self._cause = self._cause or cause
        self._connector.cut(self._cause)

    def end(self, cause: str) -> None:
        """The engine has ended."""
        self.cut(cause)
        self.died.set()

    async def close(self) -> None:
        """Give back what the session holds, after end()."""
        with anyio.move_on_after(CLOSING_TIME, shield=True):
            await self._connector.wait_cut()
        with anyio.move_on_after(CLOSING_TIME, shield=True):
            await self.session.close()

    def __repr__(self) -> str:
        state = f"ended: {self._cause}" if self.died.is_set() else "open"
        return f"<Upstream {self.engine.name} {self.model.name} {state}>"
