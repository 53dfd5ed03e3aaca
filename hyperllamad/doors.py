"""The two doors: the API's sockets and the admin socket, how they are opened, handed on and closed.

Sockets come from systemd where it passes some (activation.py), else they are opened as the configuration says.  The
API's are left with systemd for the next life, so that clients wait through a restart instead of being refused.  Must
not know what is answered behind a door.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from hyperllamad import activation, listen
from hyperllamad.config.tables import Config
from hyperllamad.connections import UNBOUNDED, Bounds
from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.sockets import addresses, open_tcp, open_unix
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad")

API, ADMIN = "api", "admin"  # FileDescriptorName= of the socket units
KEPT = "api-kept"  # the name under which the next life finds the API's sockets
LAST_WORDS = 2.0  # seconds a connection gets to take the end of its answer, once the fleet is empty


class AddressTakenError(HyperLlamaError):
    """Somebody else listens where we should, or another daemon has our runtime directory."""

    code = "address_taken"


@dataclass(frozen=True, slots=True)
class Doors:
    """Listening sockets.  `handed_on`: somebody else holds the API's too, and clients may wait at them."""

    api: tuple[socket.socket, ...]
    admin: socket.socket
    handed_on: bool

    @property
    def url(self) -> str:
        """An address of the API that works on this machine: every interface is shown as the loopback one."""
        host, port = self.api[0].getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"http://{shown}:{port}"


@contextmanager
def opened(config: Config) -> Iterator[Doors]:
    """Both doors, not yet answering; raises AddressTakenError.  At the end our copies of the sockets are closed."""
    with ExitStack() as held:
        passed = activation.take()
        for sock in (sock for sockets in passed.values() for sock in sockets):
            held.callback(sock.close)
        if given := passed.get(API):
            api, handed_on = given, True
            log.info("systemd listens for us", extra=fields(url=", ".join(map(_shown, given))))
        else:
            api = _kept(config, passed.get(KEPT, [])) or _open_api(config, held)
            handed_on = activation.keep(KEPT, api)
        admin = passed[ADMIN][0] if ADMIN in passed else _open_admin(config, held)
        yield Doors(tuple(api), admin, handed_on)


def _kept(config: Config, sockets: list[socket.socket]) -> list[socket.socket]:
    """The earlier life's sockets, when they are where the configuration wants them; else none, and they are closed."""
    if not sockets:
        return []
    with contextlib.suppress(OSError):
        wanted = {address[:2] for _, address in addresses(*config.server.address)}
        if wanted == {sock.getsockname()[:2] for sock in sockets}:
            return sockets
    log.info("the address has changed", extra=fields(before=", ".join(map(_shown, sockets))))
    activation.forget(KEPT)
    for sock in sockets:
        sock.close()
    return []


def _open_api(config: Config, held: ExitStack) -> list[socket.socket]:
    host, port = config.server.address
    try:
        found = open_tcp(host, port)
    except OSError as failure:
        where = failure.filename or f"{host}:{port}"
        hint = (
            "another server, perhaps Ollama, has it: stop that, or set `server.host` or OLLAMA_HOST"
            if failure.errno == errno.EADDRINUSE
            else "check `server.host` and OLLAMA_HOST"
        )
        raise AddressTakenError(f"cannot listen on {where}: {failure.strerror or failure}", hint=hint) from failure
    for sock in found:
        held.callback(sock.close)
    return found


def _open_admin(config: Config, held: ExitStack) -> socket.socket:
    path = config.paths.admin_socket
    try:
        sock = open_unix(path, group=config.admin.group)
    except OSError as failure:
        raise AddressTakenError(f"cannot listen on {path}: {failure.strerror}") from failure
    held.callback(path.unlink, missing_ok=True)
    held.callback(sock.close)
    return sock


def _shown(sock: socket.socket) -> str:
    return "{}:{}".format(*sock.getsockname()[:2]) if sock.family != socket.AF_UNIX else str(sock.getsockname())


# -- answering ---------------------------------------------------------------------------------------------------------


class Current:
    """The app that answers from now on; requests that have begun keep the one they began with."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class Door:
    """One app answering on its sockets."""

    def __init__(self) -> None:
        self._closing = anyio.Event()
        self._over = anyio.Event()

    async def close(self) -> None:
        """Take no new connection, let idle ones go, and wait until the last open one has had its answer."""
        self._closing.set()
        await self._over.wait()

    async def serve(self, app: Any, sockets: Sequence[socket.socket], bounds: Bounds, *, task_status: Any) -> None:
        stop, grace = self._closing.wait, float("inf")
        try:
            await listen.serve(app, sockets, stop=stop, grace=grace, bounds=bounds, task_status=task_status)
        finally:
            self._over.set()


@asynccontextmanager
async def answering(app: Any, sockets: Sequence[socket.socket], bounds: Bounds = UNBOUNDED) -> AsyncIterator[Door]:
    """Answer on `sockets` for as long as the block lasts; then connections get a moment for their last words."""
    door = Door()
    async with anyio.create_task_group() as tasks:
        await tasks.start(partial(door.serve, app, sockets, bounds))
        try:
            yield door
        finally:
            with anyio.move_on_after(LAST_WORDS):
                await door.close()
            tasks.cancel_scope.cancel()
