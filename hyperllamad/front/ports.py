"""What the front needs of the rooms below it, as types: the daemon hands in the real ones, tests their fakes.

Nothing here does anything.  The owners of the real things are supervision (Supervisor, Lease, Upstream, Row) and
store (Catalog, and Library, which is small enough to be itself in tests).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hyperllamad.config.tables import Config
from hyperllamad.core.instance import State
from hyperllamad.core.models import Model, Settings
from hyperllamad.core.quota import Quota
from hyperllamad.engines.base import Engine
from hyperllamad.keys import KeyRing
from hyperllamad.store.library import Library
from hyperllamad.telemetry import Metrics

Meanwhile = Callable[[], Awaitable[None]]


class Died(Protocol):
    """Set when the engine's process is gone."""

    def is_set(self) -> bool: ...
    async def wait(self) -> object: ...


class Work(Protocol):
    """One request to an engine, in the eyes of those who watch the engine: is it to speak now, what has come?"""

    pieces: int
    waiting: bool

    def end(self) -> None:
        """The request is over; again does nothing."""


class Content(Protocol):
    """The body of an engine's answer."""

    async def readany(self) -> bytes:
        """What has come, as soon as anything has; b"" at the end.  Raises aiohttp.ClientError when it breaks off."""


class Answer(Protocol):
    """What an engine says to one request."""

    @property
    def status(self) -> int: ...
    @property
    def content(self) -> Content: ...

    async def read(self) -> bytes:
        """All of the body that is still to come; raises aiohttp.ClientError when it breaks off."""

    def close(self) -> None:
        """Hang up, which makes the engine stop; again does nothing."""


class Upstream(Protocol):
    """A running engine, as far as a request may use it."""

    @property
    def engine(self) -> Engine: ...
    @property
    def model(self) -> Model: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def name(self) -> str:
        """What the model is called inside the engine."""

    @property
    def died(self) -> Died: ...
    @property
    def cut_on_purpose(self) -> bool:
        """Its streams were ended because somebody wanted that."""

    async def post(self, path: str, payload: bytes, meanwhile: Meanwhile | None = None) -> Answer:
        """Ask for `path` with a body of JSON, and do what can be done until the answer comes.

        Raises aiohttp.ClientError or OSError where none comes, and what `meanwhile` raises.
        """

    def begin(self, size: int) -> Work:
        """A request of that many bytes is sent."""

    def suspect(self) -> None:
        """It answered what is no answer: somebody should look after it."""

    def explain(self) -> str:
        """Why the engine ended, or why its answers were cut off; "" while neither has happened."""


class Lease(Protocol):
    """A request's right to an engine."""

    async def granted(self) -> Upstream:
        """Wait for the engine; raises HyperLlamaError when it does not come."""

    def release(self) -> None:
        """Give it back, granted or not; again does nothing."""

    def begun(self) -> None:
        """The engine has taken the request in, or will not tell; again does nothing."""

    def wanted(self) -> bool:
        """Somebody waits for it to be given back."""


class Row(Protocol):
    """One instance, as much of it as the API shows."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def size(self) -> int: ...
    @property
    def processor(self) -> str:
        """ "100% CPU" or "100% GPU"."""

    @property
    def context(self) -> int: ...
    @property
    def until(self) -> float | None:
        """Unix seconds; None = for ever."""


class Supervisor(Protocol):
    """Gives engines to requests."""

    @property
    def closing(self) -> bool:
        """Shutting down: nothing new is taken."""

    def lease(self, model: Model, *, keep_alive: float | None = None, client: str = "", weight: float = 1.0) -> Lease:
        """Ask for an engine, on behalf of one of many clients who get turns by weight; raises NoEngineError."""

    def settings(self, model: Model) -> Settings:
        """How the model would be run now; raises NoEngineError."""

    def grow(self, model: Model, context: int) -> None:
        """Run it with at least so many tokens of context from now on, 0 = as configured; raises NoEngineError."""

    def keep(self, model: Model, keep_alive: float) -> bool: ...
    def rows(self) -> Sequence[Row]: ...


class Catalog(Protocol):
    """Knows the models on disk."""

    def list(self) -> Sequence[Model]:
        """Newest first."""

    def resolve(self, text: str) -> Model:
        """The model of that name; raises InvalidNameError, ModelNotFoundError, LoadFailedError (there but broken)."""


class Wire(Protocol):
    """Writes chunks of a response body past the web framework; see wire.Wire for when that is sound."""

    @property
    def holds(self) -> bool:
        """A head is made that nobody has seen."""

    async def hold(self, sending: Awaitable[None]) -> None:
        """Have `sending`, which sends a head, write nothing: it leaves with what is written next."""

    def take_back(self) -> None:
        """Another head takes the place of the held one.

        Raises OSError when the client has gone, and RuntimeError when the head may have been read.
        """

    @property
    def pending(self) -> int:
        """Bytes that were written and not taken."""

    async def write(self, data: bytes) -> None: ...
    async def drained(self) -> None:
        """Until most of that was taken."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a route may ask."""

    catalog: Catalog
    supervisor: Supervisor
    library: Library
    config: Config
    metrics: Metrics
    version: str  # ours, not Ollama's
    keys: KeyRing | None = None  # None: nobody is asked for one
    quotas: defaultdict[str, Quota] = field(default_factory=lambda: defaultdict(Quota))  # by name of the key
