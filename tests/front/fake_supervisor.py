"""A Supervisor, Lease, Upstream and Catalog as `front.ports` wants them, over one scripted engine.

It keeps the two promises that front relies on: a lease is answered once, and its release is idempotent; and it counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio

from hyperllamad.core.errors import HyperLlamaError, ModelNotFoundError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Capability, Format, Kind, Model, Settings
from hyperllamad.core.names import ModelName
from hyperllamad.engines.base import Explanation, Home, Launch, Place, Probe, Recipe
from hyperllamad.supervision.upstream import Connector


def model(name: str, *capabilities: Capability, **changes: Any) -> Model:
    """A model that stands nowhere."""
    made = Model(
        name=ModelName.parse(name),
        path="/models/m.gguf",
        format=Format.GGUF,
        architecture="llama",
        family="llama",
        size=98362432,
        digest="b80e" * 16,
        modified_at=1763750000.25,
        parameter_count=134515008,
        quantization="Q4_1",
        context_length=8192,
        embedding_length=576,
        capabilities=frozenset({Capability.COMPLETION, *capabilities}),
        chat_template="{% for message in messages %}{{ message.content }}{% endfor %}",
        info={
            "general.architecture": "llama",
            "llama.context_length": 8192,
            "llama.rope.freq_base": 100000.0,
            "llama.attention.layer_norm_rms_epsilon": 1e-05,
            "tokenizer.ggml.tokens": None,
        },
    )
    return replace(made, **changes)


class FakeEngine:
    """Passes bodies through unchanged."""

    name = "scripted"
    title = "Scripted"
    formats = frozenset(Format)
    trims_stops = True
    ignores: Mapping[str, Any] = {"min_p": 0.0}
    slows = False
    bounded_scores = False
    overflow = r"(?:(\d+) tokens are )?too long"
    vital = ""
    version = "1"
    variants: Mapping[str, Recipe] = {}

    def __init__(self, **extra: str) -> None:
        self.probe = Probe(extra=extra)

    def refusal(self, model: Model, home: Home) -> str:
        return ""

    def launch(self, model: Model, settings: Settings, home: Home, place: Place) -> Launch:
        raise NotImplementedError

    def phase(self, line: str) -> str:
        return ""

    def body(self, kind: Kind, body: dict[str, Any], model: Model, settings: Settings) -> dict[str, Any]:
        return body

    def explain_exit(self, code: int, lines: Sequence[str]) -> Explanation:
        raise NotImplementedError


@dataclass
class FakeWork:
    """What a request tells of itself."""

    size: int
    pieces: int = 0
    waiting: bool = False
    over: bool = False

    def end(self) -> None:
        self.over = True


class FakeUpstream:
    def __init__(self, socket: Path, model: Model, engine: FakeEngine) -> None:
        self.engine = engine
        self.model = model
        self.settings = Settings(engine="scripted", home="", device="cpu", context=2048, parallel=4)
        self.name = model.digest[:12]
        self.works: list[FakeWork] = []
        self.suspicions = 0
        self.connector = Connector(str(socket))
        self.post = self.connector.post
        self.died = anyio.Event()
        self.cause = ""
        self.cut_on_purpose = False

    def explain(self) -> str:
        return self.cause

    def begin(self, size: int) -> FakeWork:
        self.works.append(FakeWork(size))
        return self.works[-1]

    def suspect(self) -> None:
        self.suspicions += 1

    def cut(self, cause: str) -> None:
        """End every open answer."""
        self.cause = cause
        self.connector.cut(cause)

    def die(self, cause: str) -> None:
        self.cause = cause
        self.died.set()


class FakeLease:
    def __init__(self, supervisor: FakeSupervisor, model: Model) -> None:
        self._supervisor = supervisor
        self._model = model
        self._released = False

    async def granted(self) -> FakeUpstream:
        await self._supervisor.ready.wait()
        if self._supervisor.refusal is not None:
            raise self._supervisor.refusal
        self._supervisor.loaded = self._model
        return self._supervisor.upstream

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._supervisor.open -= 1
            self._supervisor.ended()

    def begun(self) -> None:
        self._supervisor.begun += 1

    def wanted(self) -> bool:
        return self._supervisor.wanted


@dataclass(frozen=True)
class FakeRow:
    name: str
    digest: str
    state: State
    size: int = 832
    processor: str = "100% CPU"
    context: int = 2048
    until: float | None = None
    waiting: int = 0
    restarts: int = 0


@dataclass
class FakeSupervisor:
    """Grants at once unless `ready` is taken away or a `refusal` is set; counts what is open."""

    upstream: FakeUpstream
    ready: anyio.Event = field(default_factory=anyio.Event)
    refusal: HyperLlamaError | None = None
    open: int = 0
    taken: int = 0
    closing: bool = False
    begun: int = 0  # times that an engine was said to have taken a request in
    wanted: bool = False  # somebody waits for each lease
    loaded: Model | None = None
    keep_alive: float = 300.0
    kept: list[tuple[str, float]] = field(default_factory=list)
    clients: list[tuple[str, float]] = field(default_factory=list)
    grown: list[int] = field(default_factory=list)
    more_rows: list[FakeRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ready.set()

    def lease(
        self, model: Model, *, keep_alive: float | None = None, client: str = "", weight: float = 1.0
    ) -> FakeLease:
        self.clients.append((client, weight))
        self.open += 1
        self.taken += 1
        if keep_alive is not None:
            self.keep_alive = keep_alive
        return FakeLease(self, model)

    def ended(self) -> None:
        if not self.open and self.keep_alive == 0:
            self.loaded = None

    def settings(self, model: Model) -> Settings:
        return self.upstream.settings

    def grow(self, model: Model, context: int) -> None:
        self.grown.append(context)
        self.upstream.settings = replace(self.upstream.settings, context=context or 2048)

    def keep(self, model: Model, keep_alive: float) -> bool:
        self.kept.append((model.name.short, keep_alive))
        self.keep_alive = keep_alive
        self.ended()
        return self.loaded is not None

    def rows(self) -> tuple[FakeRow, ...]:
        rows = list(self.more_rows)
        if self.loaded is not None:
            until = None if self.keep_alive == math.inf else time.time() + self.keep_alive
            rows.append(FakeRow(self.loaded.name.short, self.loaded.digest, State.READY, until=until))
        return tuple(rows)


class FakeCatalog:
    """Models by name, case ignored."""

    def __init__(self, *models: Model) -> None:
        self._models = {model.name.key: model for model in models}

    def list(self) -> tuple[Model, ...]:
        return tuple(self._models.values())

    def resolve(self, text: str) -> Model:
        try:
            return self._models[ModelName.parse(text).key]
        except KeyError:
            raise ModelNotFoundError(text) from None
