"""The admin door on a real Unix socket, served by listen.py over fake rooms; and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import anyio
import msgspec
import pytest

from hyperllamactl.client import NAMES
from hyperllamactl.protocol.base import Command, Reply
from hyperllamactl.protocol.table import Line
from hyperllamad import listen, sockets
from hyperllamad.config.load import load_config
from hyperllamad.control.app import create_app
from hyperllamad.control.rooms import Rooms
from hyperllamad.core.machine import Machine
from hyperllamad.engines.homes import Homes
from hyperllamad.keys import KeyRing
from hyperllamad.listen import Peer
from hyperllamad.store.library import Library
from hyperllamad.store.shortnames import ShortNames
from tests.control.fakes import FakeCatalog, FakeReloader, FakeSupervisor, model

SMOL, QWEN = model(), model("qwen3:8b", digest="cd" * 32)
KEEP = object()


GIB = 1 << 30
MACHINE = Machine(processor="A CPU", cores=4, features=frozenset({"avx2"}), memory=16 * GIB, available=12 * GIB)


async def here() -> Machine:
    return MACHINE


@dataclass
class Answer:
    status: int
    lines: list[Reply]
    headers: Any

    @property
    def last(self) -> Any:
        return self.lines[-1]


@dataclass
class Door:
    """The running app, what is behind it, and ways to knock."""

    path: Path
    rooms: Rooms
    supervisor: FakeSupervisor
    session: aiohttp.ClientSession
    peer: Any = KEEP  # what the app is told instead of what the kernel says
    engines: Path = field(init=False)

    def __post_init__(self) -> None:
        self.engines = self.rooms.config.paths.engines

    async def post(self, path: str, body: bytes = b"", **headers: str) -> Answer:
        async with self.session.post(f"http://hyperllamad{path}", data=body, headers=headers) as response:
            data = await response.read()
            lines = [msgspec.json.decode(line, type=Line) for line in data.splitlines()]
            return Answer(response.status, cast("list[Reply]", lines), response.headers)

    async def call(self, command: Command) -> Answer:
        return await self.post(f"/v1/{NAMES[type(command)]}", msgspec.json.encode(command))

    @asynccontextmanager
    async def stream(self, command: Command) -> AsyncIterator[Callable[[], Any]]:
        """Hands out `next_line`; leaving the block hangs up."""
        name = NAMES[type(command)]
        async with self.session.post(f"http://hyperllamad/v1/{name}", data=msgspec.json.encode(command)) as response:

            async def next_line() -> Reply:
                with anyio.fail_after(10):
                    return cast("Reply", msgspec.json.decode(await response.content.readline(), type=Line))

            yield next_line
            response.close()


@pytest.fixture
async def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setenv("PATH", "/nowhere")  # no llama-server of the machine's own
    settings = load_config(tmp_path / "etc", {"HOME": str(tmp_path)})
    supervisor = FakeSupervisor()
    homes = Homes(settings.paths.engines, settings.engine)
    rooms = Rooms(
        config=settings,
        supervisor=cast("Any", supervisor),
        catalog=cast("Any", FakeCatalog(SMOL, QWEN)),
        library=Library(settings, ShortNames(())),
        homes=homes,
        machine=here,
        keys=KeyRing(settings),
        reloader=FakeReloader(),
        started_at=1.0,
        url="http://127.0.0.1:11434",
    )
    path = tmp_path / "admin.sock"
    app = create_app(rooms)
    connector = aiohttp.UnixConnector(str(path), force_close=True)
    async with anyio.create_task_group() as tasks, aiohttp.ClientSession(connector=connector) as session:
        knocked = Door(path, rooms, supervisor, session)

        async def introduced(scope: Any, receive: Any, send: Any) -> None:
            if knocked.peer is not KEEP:
                scope["state"]["peer"] = knocked.peer
            await app(scope, receive, send)

        stop, sock = anyio.Event(), sockets.open_unix(path)

        async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            await listen.serve(introduced, [sock], stop=stop.wait, grace=5, task_status=task_status)

        await tasks.start(run)
        async with anyio.create_task_group() as downloads:
            await downloads.start(rooms.library.run)
            yield knocked
            downloads.cancel_scope.cancel()
        supervisor.close()
        stop.set()


def outsider(**fields: Any) -> Peer:
    """Somebody who got through the socket's mode and is nobody in particular."""
    return Peer(**{"pid": 99, "uid": 65534, "gid": 65534, **fields})
