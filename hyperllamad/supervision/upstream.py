"""The way from a request to a ready engine: an HTTP session over its Unix socket, and the reason when it ends.

Knows aiohttp; must not know the fleet or processes.
"""

from __future__ import annotations

import weakref
from typing import Any

import aiohttp
import anyio
from aiohttp.connector import Connection

from hyperllamad.core.models import Model, Settings
from hyperllamad.engines.base import Engine

BASE = "http://engine"  # the host part goes nowhere: the connector always connects to the socket
READ_BUFFER = 1 << 16  # bytes read ahead of a slow client; aiohttp pauses the engine at twice that
CLOSING_TIME = 1.0  # seconds for connections that were aborted to be gone
CLOSING_PAUSE = 0.001  # seconds


class Connector(aiohttp.UnixConnector):
    """Connects to one Unix socket, and can end everything that is open at once.

    Every request gets a connection of its own: connecting costs about 0.1 ms, while a kept one may be closed by the
    engine (after 5 s in all three) at the moment it is used again, and occupies a thread of llama.cpp until then.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, limit=0, force_close=True)
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
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

    def cut(self, cause: str) -> None:
        """Open streams end with a ClientError, new requests too.

        Not by closing the session: that leaves whoever waits for the next bytes of a stream waiting for ever (aiohttp
        3.14 forgets the stream before it hears that the connection is lost).
        """
        self._refusal = cause
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
    """A session that leaves time limits, encodings and cookies to whoever uses it."""
    return aiohttp.ClientSession(
        BASE,
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=READ_BUFFER,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class Upstream:
    """What a lease grants.  `session` must not be closed by its users; `name` is the model's name in the engine.

    When the engine ends, or its streams are cut off, requests fail with an aiohttp.ClientError.  Some time after the
    end the session is closed, which aiohttp answers with a RuntimeError: ask for `session.closed` before a request.
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
        self._cause = ""

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
