"""What the front's tests share: the app over a scripted engine, asked through our own listener."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import msgspec
import pytest

from hyperllamad import listen, sockets
from hyperllamad.config.load import load_config
from hyperllamad.core.models import Capability, Model
from hyperllamad.doors import Current
from hyperllamad.front.app import create_app
from hyperllamad.front.asgi import App, Receive, Scope, Send
from hyperllamad.front.ports import Catalog, Services
from hyperllamad.keys import KeyRing
from hyperllamad.store.library import Library
from hyperllamad.store.shortnames import ShortNames
from hyperllamad.telemetry import Metrics
from tests.front import fake_supervisor as fakes
from tests.front import scripted_engine
from tests.front.http_client import Client
from tests.front.scripted_engine import Script, ScriptedEngine

MODELS = (
    fakes.model("m"),
    fakes.model("mt", Capability.TOOLS),
    fakes.model("mk", Capability.THINKING),
    fakes.model("mi", Capability.INSERT),
    fakes.model("ms", system="You are Bob.", parameters={"temperature": 0, "stop": ["A", "B"], "seed": 7}),
    fakes.model("me", capabilities=frozenset({Capability.EMBEDDING})),
)


@dataclass
class House:
    """Everything a test may want to look at."""

    client: Client
    engine: ScriptedEngine
    supervisor: fakes.FakeSupervisor
    metrics: Metrics
    socket: Path
    services: Services
    current: Current  # what answers: another app takes its place at a reload
    port: int = 0  # on loopback, where one was asked for

    async def wait_idle(self) -> None:
        """Until no request holds anything: a client sees the end of its answer a moment before."""
        await wait_until(lambda: self.supervisor.open == 0)


@dataclass
class Store:
    """Models on a disk and what changes them."""

    catalog: Catalog
    library: Library


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@asynccontextmanager
async def open_house(
    where: Path,
    script: Script,
    *,
    engine: fakes.FakeEngine | None = None,
    models: tuple[Model, ...] = MODELS,
    wire: bool = True,
    store: Store | None = None,
    keys: KeyRing | None = None,
    config: Mapping[str, dict[str, Any]] = MappingProxyType({}),
    tcp: bool = False,
    **server: Any,
) -> AsyncIterator[House]:
    """The front over `script`, behind our own listener; `wire=False` takes the fast path away, `server` is [server],
    `config` what is changed in other tables.

    `store` takes the place of `models`, which lie on no disk, and of a library without any.
    """
    async with AsyncExitStack() as held:
        scripted = await held.enter_async_context(scripted_engine.running(script, where / "engine"))
        upstream = fakes.FakeUpstream(where / "engine", models[0], engine or fakes.FakeEngine())
        supervisor = fakes.FakeSupervisor(upstream)
        loaded = load_config(where, environ={"HOME": str(where)})
        for name, values in {"server": server, **config}.items():
            table = msgspec.structs.replace(getattr(loaded, name), **values)
            loaded = msgspec.structs.replace(loaded, **{name: table})
        metrics = Metrics()
        if store is None:
            loaded.paths.models.mkdir(parents=True, exist_ok=True)
            store = Store(fakes.FakeCatalog(*models), Library(loaded, ShortNames(())))
        await held.enter_async_context(_running(store.library))
        services = Services(store.catalog, supervisor, store.library, loaded, metrics, "1.2.3", keys)
        current = Current(create_app(services))
        sock = sockets.open_unix(where / "front")
        ports = sockets.open_tcp("127.0.0.1", 0) if tcp else []
        await held.enter_async_context(_served(current if wire else _without_wire(current), sock, *ports))
        port = ports[0].getsockname()[1] if ports else 0
        yield House(Client(where / "front"), scripted, supervisor, metrics, where / "front", services, current, port)


@asynccontextmanager
async def _running(library: Library) -> AsyncIterator[None]:
    running = asyncio.create_task(library.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


@asynccontextmanager
async def _served(app: App, *socks: socket.socket) -> AsyncIterator[None]:
    """A task of its own and not a task group: a failed assertion must not come wrapped."""
    stop, started = anyio.Event(), asyncio.get_running_loop().create_future()

    class Status:
        def started(self, value: object = None) -> None:
            started.set_result(value)

    serving = asyncio.create_task(listen.serve(app, socks, stop=stop.wait, grace=1.0, task_status=Status()))
    await started
    try:
        yield
    finally:
        stop.set()
        await serving


def _without_wire(app: App) -> App:
    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        scope.get("state", {}).pop("wire", None)
        await app(scope, receive, send)

    return asgi


@pytest.fixture
def house(tmp_path: Path) -> OpenHouse:
    """`async with house(script) as h:`; see open_house."""
    return partial(open_house, tmp_path)


async def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for a fact that another task brings about."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.005)
