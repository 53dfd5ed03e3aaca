"""Every key of the configuration and its default; `etc/hyperllama/` says the same with a comment to each.

A property gives a value in the unit it is used in, and raises BadRequestError where it cannot be read; checks.py has
looked at all of them before anybody else does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from hyperllamad.config.paths import Paths, PathsTable
from hyperllamad.config.toml_file import Table
from hyperllamad.config.values import parse_host, parse_seconds, parse_size
from hyperllamad.connections import Bounds, affordable
from hyperllamad.core import durations
from hyperllamad.core.models import Limits

Count = Annotated[int, Meta(ge=0)]


class Server(Table, frozen=True, kw_only=True):
    """[server]: the API on port 11434."""

    host: str = "127.0.0.1:11434"
    origins: tuple[str, ...] = ()
    shutdown_grace: str = "30s"
    max_connections: Count = 0
    connections_per_address: Count = 256
    header_timeout: str = "10s"
    idle_timeout: str = "75s"
    unread_timeout: str = "2m"
    unread_timeout_wanted: str = "10s"
    debug: bool = False
    continue_streams: bool = True

    @property
    def address(self) -> tuple[str, int]:
        return parse_host(self.host)

    @property
    def grace(self) -> float:
        """Seconds open requests get at shutdown."""
        return parse_seconds(self.shutdown_grace)

    @property
    def unread_wanted(self) -> float:
        """Seconds a client may take nothing of its answer while others wait for the model; 0 = any number."""
        return parse_seconds(self.unread_timeout_wanted)

    def bounds(self, descriptors: int) -> Bounds:
        """Of the API's connections, with so many descriptors to open."""
        most = self.max_connections or affordable(descriptors)
        header, idle, unread = map(parse_seconds, (self.header_timeout, self.idle_timeout, self.unread_timeout))
        return Bounds(most, self.connections_per_address, header, idle, unread)


class FleetTable(Table, frozen=True, kw_only=True):
    """[fleet]: how many models, for how long, and how much patience."""

    keep_alive: str = "5m"
    max_loaded_models: Count = 0
    max_queue: Count = 512
    load_timeout: str = "15m"
    stop_timeout: str = "10s"
    restart_budget: Count = 3
    capture_stacks: bool = False
    adopt_within: str = "0"
    preload: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    memory: str = ""
    gpu_overhead: str = ""
    sleep_memory: str = ""
    spread: bool = False
    gpu_wait: str = "30s"
    cpu_fallback: bool = False
    rest_before_sleep: bool = True

    @property
    def gpu_wait_seconds(self) -> float:
        """At start, for a driver that comes late."""
        return max(0.0, parse_seconds(self.gpu_wait))

    @property
    def memory_bytes(self) -> int:
        """Host memory for models in it; 0 = what there is."""
        return parse_size(self.memory) if self.memory else 0

    @property
    def gpu_overhead_bytes(self) -> int:
        return parse_size(self.gpu_overhead) if self.gpu_overhead else 0

    @property
    def sleep_memory_bytes(self) -> int | None:
        """Host memory for the weights of models asleep; None = half of what there is."""
        return parse_size(self.sleep_memory) if self.sleep_memory else None

    @property
    def keep_alive_seconds(self) -> float:
        seconds = parse_seconds(self.keep_alive)
        return seconds if seconds >= 0 else durations.FOREVER

    @property
    def stop_timeout_seconds(self) -> float:
        return parse_seconds(self.stop_timeout)

    @property
    def adopt_within_seconds(self) -> float:
        """0 = engines end with the daemon."""
        return max(0.0, parse_seconds(self.adopt_within))

    @property
    def load_timeout_seconds(self) -> float:
        seconds = parse_seconds(self.load_timeout)
        return seconds if seconds > 0 else durations.FOREVER


class ModelsTable(Table, frozen=True, kw_only=True):
    """[models]: what every model gets unless its own file says otherwise."""

    context: Count = 0
    grow_context: bool = False
    parallel: Count = 0
    directories: tuple[str, ...] = ()
    auto_pull: bool = False


class EnginesTable(Table, frozen=True, kw_only=True):
    """[engines]: what holds for all of them."""

    telemetry: bool = False
    hub_access: bool = False


class AdminTable(Table, frozen=True, kw_only=True):
    """[admin]: the Unix socket hyperllamactl speaks to."""

    group: str = "hyperllama"


class KeysTable(Table, frozen=True, kw_only=True):
    """[keys]: API keys, which are asked for only when `required`; limits are those of keys that state none."""

    required: bool = False
    file: str = ""
    concurrent: Count = 0
    tokens_per_minute: Count = 0


class _Limited(Table, frozen=True, kw_only=True):
    """Keys of an engine and of a model: what its processes may use, where a control group enforces it."""

    memory_max: str = ""
    tasks_max: Count = 0
    cpu_weight: Annotated[int, Meta(ge=0, le=10_000)] = 0

    @property
    def limits(self) -> Limits:
        return Limits(parse_size(self.memory_max) if self.memory_max else 0, self.tasks_max, self.cpu_weight)


class EngineTable(_Limited, frozen=True, kw_only=True):
    """engines.d/NAME.toml: one engine."""

    enabled: bool = True
    version: str = ""
    variant: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    memory: str = ""
    prepare: Literal["auto", "on", "off"] = "auto"

    @property
    def memory_bytes(self) -> int:
        return parse_size(self.memory) if self.memory else 0

    def prepares(self, device: str) -> bool:
        """Whether a process is kept that has done the engine's imports, in a home for "cpu" or "cuda"."""
        return self.prepare == "on" or (self.prepare == "auto" and device == "cuda")


class ModelTable(_Limited, frozen=True, kw_only=True):
    """models.d/*.toml: one model, under the name it is asked for by."""

    name: str
    path: str = ""
    engine: str = ""
    context: Count = 0
    parallel: Count = 0
    quantize: Literal["", "fp8"] = ""
    args: tuple[str, ...] = ()
    system: str = ""
    parameters: dict[str, Any] = {}


class File(Table, frozen=True, kw_only=True):
    """hyperllamad.toml as a whole."""

    server: Server = Server()
    fleet: FleetTable = FleetTable()
    models: ModelsTable = ModelsTable()
    engines: EnginesTable = EnginesTable()
    keys: KeysTable = KeysTable()
    admin: AdminTable = AdminTable()
    paths: PathsTable = PathsTable()


class Config(Table, frozen=True, kw_only=True):
    """Everything, resolved."""

    server: Server
    fleet: FleetTable
    models: ModelsTable
    engines: EnginesTable
    keys: KeysTable
    admin: AdminTable
    paths: Paths
    engine: dict[str, EngineTable]
    model: tuple[ModelTable, ...]

    @property
    def keys_file(self) -> Path:
        """Where the API keys are kept."""
        return Path(self.keys.file).expanduser().absolute() if self.keys.file else self.paths.state / "keys.toml"

    def engine_table(self, name: str) -> EngineTable:
        return self.engine.get(name, EngineTable())
