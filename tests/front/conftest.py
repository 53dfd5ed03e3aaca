"""What the front's tests share: the app over a scripted engine, asked through our own listener."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import msgspec
import pytest

from hyperllamad import config as configuration
from hyperllamad import listen
from hyperllamad.core.models import Capability, Model
from hyperllamad.front.app import create_app
from hyperllamad.front.asgi import App, Receive, Scope, Send
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


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@asynccontextmanager
async def open_house(
    where: Path,
    script: Script,
    *,
    engine: fakes.FakeEngine | None = None,
    models: tuple[Model, ...] = MODELS,
    wire: bool = True,
    **server: Any,
) -> AsyncIterator[House]:
    """The front over `script`, behind our own listener; `wire=False` takes the fast path away, `server` is [server]."""
    async with AsyncExitStack() as held:
        scripted = await held.enter_async_context(scripted_engine.running(script, where / "engine"))
        upstream = fakes.FakeUpstream(where / "engine", models[0], engine or fakes.FakeEngine())
        held.push_async_callback(upstream.session.close)
        supervisor = fakes.FakeSupervisor(upstream)
        config = configuration.load(where, environ={"HOME": str(where)})
        config = msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **server))
        metrics = Metrics()
        app = create_app(fakes.FakeCatalog(*models), supervisor, config, metrics, "1.2.3")
        sock = listen.open_unix(where / "front")
        stop = anyio.Event()
        tasks: anyio.abc.TaskGroup = await held.enter_async_context(anyio.create_task_group())
        held.callback(stop.set)
        served = app if wire else _without_wire(app)
        await tasks.start(partial(listen.serve, served, [sock], stop=stop.wait, grace=1.0))
        yield House(Client(where / "front"), scripted, supervisor, metrics, where / "front")


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
