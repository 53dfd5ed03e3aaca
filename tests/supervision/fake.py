"""A fake Engine, models whose engine has vices, and a Supervisor over both: real children, no real engine.

fake.install(monkeypatch)
async with fake.supervised(runtime) as supervisor:
    lease = supervisor.lease(fake.model(runtime, "m", "--slow", "0.1"))
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from hyperllamad.config.load import load_config
from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import Config, EngineTable
from hyperllamad.core.gpu_health import Verdict
from hyperllamad.core.instance import State
from hyperllamad.core.models import Device, Format, Kind, Model, Need, Settings
from hyperllamad.core.names import ModelName
from hyperllamad.core.progress import Limits
from hyperllamad.engines import base
from hyperllamad.engines.base import Explanation, Home, Launch, Place, Preparation, Probe, Recipe
from hyperllamad.engines.homes import Homes
from hyperllamad.supervision.meter import Meter
from hyperllamad.supervision.probe import Pace
from hyperllamad.supervision.rows import Change, Row
from hyperllamad.supervision.supervisor import Supervisor

PROGRAM = Path(__file__).parent.parent / "fake_engine.py"
LIMITS = Limits(stopped=0.2, still=0.5, busy=1.0, reading=0.02, answer=0.3, longest_step=0.2)
FAST = Pace(first=0.01, slowest=0.05, health=0.05, answer=0.3, busy=0.05, again=0.1, limits=LIMITS)
RETRY_POINTLESS = 2  # the exit code that the fake engine uses for what would fail again


class FakeEngine:
    """Speaks for tests/fake_engine.py; the vices of a model are its `engine_args`."""

    name = "llama_cpp"  # of a real one, so that everything that loads engines by name takes it
    title = "Fake"
    formats = frozenset({Format.GGUF})
    trims_stops = True
    ignores: Mapping[str, Any] = {}
    slows = False
    bounded_scores = True
    overflow = "too long"
    vital = "--worker"
    version = "1.0"
    variants: Mapping[str, Recipe] = {}
    probe = Probe(token_ids=True, sleep="/sleep?level={level}", wake="/wake_up")

    def refusal(self, model: Model, home: Home) -> str:
        return ""

    def need(self, model: Model, settings: Settings, home: Home, device: Device) -> Need:
        return Need(weights=model.size)

    def sleep_levels(self, model: Model, settings: Settings, home: Home) -> tuple[int, ...]:
        return (1,) if "--sleeps" in settings.args else ()

    def launch(self, model: Model, settings: Settings, home: Home, place: Place) -> Launch:
        argv = (sys.executable, "-I", "-S", str(PROGRAM), "--socket", place.socket, *settings.args)
        return Launch(argv, dict(settings.env), place.cwd)

    def prepare(self, home: Home, place: Place, env: Mapping[str, str]) -> Preparation | None:
        argv = (sys.executable, "-I", "-S", str(PROGRAM), "--socket", place.socket, "--wait", place.orders)
        return Preparation(Launch(argv, dict(env), place.cwd), "waiting for orders", frozenset({"LATE"}), program=4)

    def phase(self, line: str) -> str:
        return line.removeprefix("phase ") if line.startswith("phase ") else ""

    def body(self, kind: Kind, body: dict[str, Any], model: Model, settings: Settings) -> dict[str, Any]:
        return body

    def explain_exit(self, code: int, lines: Sequence[str]) -> Explanation:
        said = next((line for line in reversed(lines) if line.startswith("error: ")), "")
        cause = said.removeprefix("error: ") or f"the fake engine ended with {code}"
        return Explanation("crash", cause, "look at the test", retry=code != RETRY_POINTLESS)


ENGINE = FakeEngine()
HOME = Home("llama_cpp-1.0-cpu", "llama_cpp", "1.0", "cpu", "/nowhere", sys.executable)
ON_GPU = Home("llama_cpp-1.0-cuda", "llama_cpp", "1.0", "cuda", "/nowhere", sys.executable)


class FakeHomes(Homes):
    """One home, of the fake engine."""

    def __init__(self, root: Path, homes: tuple[Home, ...] = (HOME,)) -> None:
        super().__init__(root, {})
        self.homes = homes

    def _refresh(self) -> None:
        if self._read is not self.homes:
            self._read = self.homes
            self._sift()


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fake engine be what is loaded by any name."""
    monkeypatch.setattr(base, "load", lambda _name: ENGINE)


def model(root: Path, name: str, *vices: str, **fields: Any) -> Model:
    """A model whose file is a GGUF header without tensors."""
    path = root / f"{name}.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    values: dict[str, Any] = {
        "name": ModelName.parse(name),
        "path": str(path),
        "format": Format.GGUF,
        "architecture": "llama",
        "family": "llama",
        "size": 24,
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "modified_at": 0.0,
        "engine_args": vices,
        **fields,
    }
    return Model(**values)


def configuration(root: Path, **fleet: Any) -> Config:
    """Defaults, everything below `root`, and `fleet` in place of the [fleet] values named."""
    defaults = load_config(root / "etc", {"HOME": str(root)})
    table = msgspec.structs.replace(defaults.fleet, **fleet)
    paths = Paths(config=root / "etc", state=root / "state", cache=root / "cache", runtime=root)
    return msgspec.structs.replace(defaults, fleet=table, paths=paths)


@asynccontextmanager
async def supervised(
    root: Path,
    *,
    pace: Pace = FAST,
    grace: str = "30s",
    engine: EngineTable | None = None,
    meter: Meter | None = None,
    patience: float = 30,
    home: Home = HOME,
    verdict: Callable[[], Verdict] | None = None,
    **fleet: Any,
) -> AsyncIterator[Supervisor]:
    """A running supervisor; afterwards it is closed, and everything of it must end."""
    settings = configuration(root, **{"stop_timeout": "1s", **fleet})
    settings = msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, shutdown_grace=grace))
    settings = msgspec.structs.replace(settings, engine={} if engine is None else {ENGINE.name: engine})
    homes = FakeHomes(root / "engines", (home,))
    supervisor = Supervisor(settings, homes, pace=pace, meter=meter, verdict=verdict)
    with anyio.fail_after(patience):
        async with anyio.create_task_group() as group:
            await group.start(supervisor.run)
            yield supervisor
            supervisor.close(now=True)


async def wait_change(supervisor: Supervisor, name: str, *states: State) -> Change:
    """The next change of that model into one of the states."""
    full = str(ModelName.parse(name))
    with supervisor.watch() as changes:
        async for change in changes:
            if change.name == full and change.state in states:
                return change
    raise AssertionError(f"{name} never came to {states}")


async def wait_unloaded(supervisor: Supervisor) -> None:
    """Until there is no instance at all."""
    with supervisor.watch() as changes:
        while supervisor.rows():
            await anext(changes)


def row(supervisor: Supervisor, name: str) -> Row | None:
    full = str(ModelName.parse(name))
    return next((row for row in supervisor.rows() if row.name == full), None)
