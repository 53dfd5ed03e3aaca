"""Stand-ins for the rooms below control: what they know is set by the test, what they are told is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import msgspec

from hyperllamad.core.errors import HyperLlamaError, ModelNotFoundError, NoEngineError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Capability, Format, Model, Settings, key_of
from hyperllamad.core.names import ModelName
from hyperllamad.engines.base import Home
from hyperllamad.store.layout import Problem
from hyperllamad.supervision.broadcast import Broadcast, Watch
from hyperllamad.supervision.logs import Ring
from hyperllamad.supervision.rows import Change, Row

SETTINGS = Settings(engine="llama_cpp", home="llama_cpp-1-cpu", device="cpu", context=4096, parallel=4)


def model(name: str = "smollm2:135m", *, digest: str = "ab" * 32) -> Model:
    return Model(
        name=ModelName.parse(name),
        path=f"/models/{name}",
        format=Format.GGUF,
        architecture="llama",
        family="llama",
        size=91_000_000,
        digest=digest,
        modified_at=1000.0,
        parameter_count=134_515_008,
        quantization="Q4_1",
        context_length=8192,
        embedding_length=576,
        capabilities=frozenset({Capability.COMPLETION, Capability.TOOLS}),
        system="Be brief.",
        parameters={"temperature": 0.2},
        license="Apache-2.0",
    )


def row(of: Model, state: State, **fields: object) -> Row:
    plain = Row(
        name=str(of.name),
        instance=str(key_of(of, SETTINGS)),
        digest=of.digest,
        engine="llama_cpp",
        home=SETTINGS.home,
        state=state,
        phase="",
        elapsed=0.0,
        phases={},
        size=250_000_000,
        size_gpu=0,
        gpus=(),
        reserved=0,
        processor="100% CPU",
        context=4096,
        parallel=4,
        running=0,
        waiting=0,
        restarts=0,
        since=2000.0,
        until=3000.0,
        pid=42,
        cause="",
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


class FakeReloader:
    """Waits for `may_end`, then says what was done or raises `failure`."""

    def __init__(self) -> None:
        self.error = ""
        self.failure: HyperLlamaError | None = None
        self.may_end = anyio.Event()

    async def reload(self, moved: Callable[[str], None]) -> str:
        moved("requests of 1 model to end")
        await self.may_end.wait()
        if self.failure:
            raise self.failure
        return "the configuration is in force"


class FakeCatalog:
    def __init__(self, *models: Model) -> None:
        self.models = models

    def list(self) -> tuple[Model, ...]:
        return self.models

    def problems(self) -> tuple[Problem, ...]:
        return (Problem("broken:latest", "/models/broken", "the file is empty"),)

    def resolve(self, text: str) -> Model:
        name = ModelName.parse(text)
        for known in self.models:
            if known.name.key == name.key:
                return known
        raise ModelNotFoundError(text)


class FakeLease:
    def __init__(self, of: Model, keep_alive: float | None) -> None:
        self.model = of
        self.keep_alive = keep_alive
        self.key = key_of(of, SETTINGS)
        self.answered = anyio.Event()
        self.error: HyperLlamaError | None = None
        self.released = anyio.Event()

    def answer(self, error: HyperLlamaError | None = None) -> None:
        self.error = error
        self.answered.set()

    async def granted(self) -> None:
        await self.answered.wait()
        if self.error:
            raise self.error

    def release(self) -> None:
        self.released.set()


class FakeSupervisor:
    def __init__(self) -> None:
        self.shown: dict[str, Row] = {}  # by instance
        self.rings: dict[str, Ring] = {}
        self.refused: set[str] = set()  # digests no engine can run
        self.changes: Broadcast[Change] = Broadcast()
        self.leases: list[FakeLease] = []
        self.leased = anyio.Event()
        self.unloaded: list[tuple[str, bool]] = []
        self.unloading = anyio.Event()
        self.retried: list[str] = []
        self.left: list[str] = []  # homes in which nothing is to be prepared any more

    def show(self, of: Model, state: State, **fields: object) -> None:
        """The instance of that model is in `state` now, and whoever watches hears of it."""
        new = row(of, state, **fields)
        self.shown[new.instance] = new
        if state is State.GONE:
            del self.shown[new.instance]
        change = Change(5000.0, new.name, new.instance, state, new.phase, new.elapsed, new.cause)
        self.changes.send(change)

    def settings(self, of: Model) -> Settings:
        if of.digest in self.refused:
            raise NoEngineError("no engine reads it", hint="install one")
        return SETTINGS

    def lease(self, of: Model, *, keep_alive: float | None = None) -> FakeLease:
        self.settings(of)
        self.leases.append(FakeLease(of, keep_alive))
        self.leased.set()
        return self.leases[-1]

    def unload(self, of: Model, *, cut: bool = False) -> bool:
        self.unloaded.append((str(of.name), cut))
        self.unloading.set()
        return str(key_of(of, SETTINGS)) in self.shown

    def retry(self, of: Model) -> None:
        self.retried.append(str(of.name))

    async def leave(self, home: Home) -> None:
        self.left.append(home.id)

    async def missing(self) -> tuple[str, ...]:
        return ("9.0 GiB of GPU 1 has not come back since gone:latest ended",)

    def prepared(self) -> dict[str, int]:
        return {"vllm-0.33.0-cuda": 812_000_000}

    def rows(self) -> tuple[Row, ...]:
        return tuple(self.shown.values())

    def logs(self, name: ModelName) -> Ring | None:
        return self.rings.get(name.key)

    def close(self) -> None:
        self.changes.close()
        for ring in self.rings.values():
            ring.end()

    def watch(self) -> Watch[Change]:
        return self.changes.watch()


def make_home(root: Path, id_: str, *, installed_at: float = 1.0) -> Home:
    """A home on disk that Homes believes in."""
    engine, version, variant = id_.rsplit("-", 2)
    home = Home(id=id_, engine=engine, version=version, variant=variant, path="", size=7, installed_at=installed_at)
    (root / id_ / "bin").mkdir(parents=True)
    (root / id_ / "bin" / "python").symlink_to(sys.executable)
    (root / id_ / "home.json").write_bytes(msgspec.json.encode(home))
    return home
