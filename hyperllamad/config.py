"""The configuration: every key, its default, where it comes from.  TOML files, then the environment Ollama users set.

Files are read once into one frozen Config; a wrong key or type raises ConfigError with file, key, what was found and
what was expected.  Nothing here acts on the configuration.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from hyperllamad.connections import Bounds, affordable
from hyperllamad.core import durations
from hyperllamad.core.errors import BadRequestError, ConfigError
from hyperllamad.core.models import Limits

T = TypeVar("T")
SYSTEM_DIRECTORY = Path("/etc/hyperllama")


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TOML table: unknown keys are refused."""


class Server(_Table, frozen=True, kw_only=True):
    """[server]: the API on port 11434."""

    host: str = "127.0.0.1:11434"
    origins: tuple[str, ...] = ()
    shutdown_grace: str = "30s"
    max_connections: Annotated[int, Meta(ge=0)] = 0
    connections_per_address: Annotated[int, Meta(ge=0)] = 256
    header_timeout: str = "10s"
    idle_timeout: str = "75s"
    unread_timeout: str = "2m"
    debug: bool = False
    continue_streams: bool = True

    @property
    def address(self) -> tuple[str, int]:
        return parse_host(self.host)

    @property
    def grace(self) -> float:
        """Seconds open requests get at shutdown."""
        return parse_seconds(self.shutdown_grace)

    def bounds(self, descriptors: int) -> Bounds:
        """Of the API's connections, with so many descriptors to open."""
        most = self.max_connections or affordable(descriptors)
        header, idle, unread = map(parse_seconds, (self.header_timeout, self.idle_timeout, self.unread_timeout))
        return Bounds(most, self.connections_per_address, header, idle, unread)


class FleetTable(_Table, frozen=True, kw_only=True):
    """[fleet]: how many models, for how long, and how much patience."""

    keep_alive: str = "5m"
    max_loaded_models: int = 0
    max_queue: int = 512
    load_timeout: str = "15m"
    stop_timeout: str = "10s"
    restart_budget: int = 3
    capture_stacks: bool = False
    adopt_within: str = "0"
    preload: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    memory: str = ""
    gpu_overhead: str = ""
    sleep_memory: str = ""
    spread: bool = False

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


class ModelsTable(_Table, frozen=True, kw_only=True):
    """[models]: what every model gets unless its own file says otherwise."""

    context: int = 0
    grow_context: bool = False
    parallel: int = 0
    directories: tuple[str, ...] = ()
    auto_pull: bool = False


class EnginesTable(_Table, frozen=True, kw_only=True):
    """[engines]: what holds for all of them."""

    telemetry: bool = False
    hub_access: bool = False


class AdminTable(_Table, frozen=True, kw_only=True):
    """[admin]: the Unix socket hyperllamactl speaks to."""

    group: str = "hyperllama"


class KeysTable(_Table, frozen=True, kw_only=True):
    """[keys]: API keys, which are asked for only when `required`; limits are those of keys that state none."""

    required: bool = False
    file: str = ""
    concurrent: int = 0
    tokens_per_minute: int = 0


class PathsTable(_Table, frozen=True, kw_only=True):
    """[paths]: where things lie; empty = the XDG directories, or /var and /run with the packaged configuration."""

    state: str = ""
    cache: str = ""
    runtime: str = ""


class _Limited(_Table, frozen=True, kw_only=True):
    """Keys of an engine and of a model: what its processes may use, where a control group enforces it."""

    memory_max: str = ""
    tasks_max: Annotated[int, Meta(ge=0)] = 0
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
    context: int = 0
    parallel: int = 0
    quantize: Literal["", "fp8"] = ""
    args: tuple[str, ...] = ()
    system: str = ""
    parameters: dict[str, Any] = {}


class _File(_Table, frozen=True, kw_only=True):
    """hyperllamad.toml as a whole."""

    server: Server = Server()
    fleet: FleetTable = FleetTable()
    models: ModelsTable = ModelsTable()
    engines: EnginesTable = EnginesTable()
    keys: KeysTable = KeysTable()
    admin: AdminTable = AdminTable()
    paths: PathsTable = PathsTable()


class Paths(_Table, frozen=True, kw_only=True):
    """Absolute directories in use."""

    config: Path
    state: Path
    cache: Path
    runtime: Path
    credentials: Path | None = None  # where systemd puts secrets for this service

    @property
    def admin_socket(self) -> Path:
        return self.runtime / "admin.sock"

    @property
    def engines(self) -> Path:
        return self.state / "engines"

    @property
    def models(self) -> Path:
        return self.state / "models"


class Config(_Table, frozen=True, kw_only=True):
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


def load(directory: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read `directory` (default: the user's, else the system's) and the environment; raises ConfigError."""
    directory = directory or default_directory(environ)
    main = directory / "hyperllamad.toml"
    file = decode(main, _File) if main.exists() else _File()
    engines = {p.stem: decode(p, EngineTable) for p in sorted((directory / "engines.d").glob("*.toml"))}
    models = tuple(decode(p, ModelTable) for p in sorted((directory / "models.d").glob("*.toml")))
    file = _with_environment(file, environ)
    config = Config(
        server=file.server,
        fleet=file.fleet,
        models=file.models,
        engines=file.engines,
        keys=file.keys,
        admin=file.admin,
        paths=_paths(file.paths, directory, environ),
        engine=engines,
        model=models,
    )
    _check_values(config, main)
    return config


def default_directory(environ: Mapping[str, str]) -> Path:
    """$HYPERLLAMA_CONFIG, else the user's own directory where it exists, else /etc/hyperllama for root."""
    if stated := environ.get("HYPERLLAMA_CONFIG"):
        return Path(stated)
    user = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config") / "hyperllama"
    return user if user.exists() or not SYSTEM_DIRECTORY.exists() else SYSTEM_DIRECTORY


def _paths(table: PathsTable, directory: Path, environ: Mapping[str, str]) -> Paths:
    home = Path(environ.get("HOME", "/"))
    if directory == SYSTEM_DIRECTORY:
        base = (Path("/var/lib/hyperllama"), Path("/var/cache/hyperllama"), Path("/run/hyperllama"))
    else:
        state = Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "hyperllama"
        cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "hyperllama"
        runtime = environ.get("XDG_RUNTIME_DIR")
        base = (state, cache, Path(runtime) / "hyperllama" if runtime else state / "run")
    stated = (table.state, table.cache, table.runtime)
    state, cache, run = (Path(s).expanduser().absolute() if s else b for s, b in zip(stated, base, strict=True))
    return Paths(
        config=directory.absolute(),
        state=state,
        cache=cache,
        runtime=run,
        credentials=Path(given) if (given := environ.get("CREDENTIALS_DIRECTORY")) else None,
    )


# -- the environment variables Ollama users already set --------------------------------------------------------


def _with_environment(file: _File, environ: Mapping[str, str]) -> _File:
    """The environment wins over the file, as an Ollama user expects of `OLLAMA_X=... hyperllamad`."""

    def text(name: str) -> str:
        return environ.get(name, "").strip().strip("\"'")

    def number(name: str, default: int) -> int:
        # Ollama takes its default for an unsigned number it cannot read.
        return int(value) if (value := text(name)).isdecimal() else default

    server, fleet, models = file.server, file.fleet, file.models
    server = msgspec.structs.replace(
        server,
        host=text("OLLAMA_HOST") or server.host,
        origins=(*server.origins, *filter(None, (o.strip() for o in text("OLLAMA_ORIGINS").split(",")))),
        debug=server.debug or text("OLLAMA_DEBUG").lower() not in {"", "0", "f", "false"},
    )
    fleet = msgspec.structs.replace(
        fleet,
        keep_alive=_environment_duration(text("OLLAMA_KEEP_ALIVE"), fleet.keep_alive),
        max_loaded_models=number("OLLAMA_MAX_LOADED_MODELS", fleet.max_loaded_models),
        max_queue=number("OLLAMA_MAX_QUEUE", fleet.max_queue),
        load_timeout=_environment_duration(text("OLLAMA_LOAD_TIMEOUT"), fleet.load_timeout),
        gpu_overhead=str(number("OLLAMA_GPU_OVERHEAD", 0) or fleet.gpu_overhead),
        spread=fleet.spread or text("OLLAMA_SCHED_SPREAD").lower() not in {"", "0", "f", "false"},
    )
    models = msgspec.structs.replace(
        models,
        context=number("OLLAMA_CONTEXT_LENGTH", models.context),
        parallel=number("OLLAMA_NUM_PARALLEL", models.parallel),
    )
    return msgspec.structs.replace(file, server=server, fleet=fleet, models=models)


def _environment_duration(text: str, default: str) -> str:
    """The text where it is a duration; the default for anything else, as Ollama does."""
    try:
        parse_seconds(text)
    except BadRequestError:
        return default
    return text


def parse_seconds(text: str) -> float:
    """Seconds in "5m30s" or, as in OLLAMA_KEEP_ALIVE, a bare whole number of seconds; raises BadRequestError."""
    return durations.parse(f"{text}s" if re.fullmatch(r"[+-]?\d+", text) else text)


def parse_host(text: str) -> tuple[str, int]:
    """(host, port) of OLLAMA_HOST's forms: `host`, `:port`, `host:port`, `scheme://host:port/path`, `[v6]:port`.

    An empty host with a port means every interface, an empty text the default, as in Ollama's envconfig.Host.
    """
    scheme, found, rest = text.strip().rpartition("://")
    rest = rest.split("/", 1)[0]
    port_default = {"http": 80, "https": 443}.get(scheme, 11434) if found else 11434
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*|[0-9a-fA-F:]*:[0-9a-fA-F:]*:[0-9a-fA-F]*)(?::(\d+))?", rest)
    host, port = (match[1], match[2]) if match else (rest.rsplit(":", 1)[0], None)
    number = int(port) if port and int(port) <= 65535 else port_default
    return host.strip("[]") if rest else "127.0.0.1", number


def parse_size(text: str) -> int:
    """Bytes in "512MiB", "4 GB" or "1073741824"; raises BadRequestError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise BadRequestError(f'not a size: "{text}"', hint='a size looks like "4GiB"')
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))


# -- errors ------------------------------------------------------------------------------------------------------


def decode(path: Path, kind: type[T], *, secret: bool = False) -> T:
    """A TOML file as `kind`; raises ConfigError with file, key, what was found (unless `secret`) and expected."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise ConfigError(f"{path}: cannot be read: {failure.strerror}") from failure
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise ConfigError(f"{path}: not valid TOML: {failure}") from failure
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as failure:
        raise ConfigError(f"{path}: {_explain(str(failure), tree, secret=secret)}") from failure


def _explain(text: str, tree: object, *, secret: bool) -> str:
    """msgspec's sentence turned into ours: the key, what was found there, what was expected."""
    what, _, where = text.partition(" - at `$")
    steps = re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]", where)
    key = ".".join(name or index for name, index in steps)
    if unknown := re.search(r"unknown field `(.+)`", what):
        return f"unknown key `{f'{key}.' if key else ''}{unknown[1]}`: see the commented file for the keys there are"
    if missing := re.search(r"missing required field `(.+)`", what):
        return f"the key `{f'{key}.' if key else ''}{missing[1]}` is missing"
    found: Any = tree
    for name, index in steps:
        found = found[name] if name else found[int(index)]
    expected = re.sub(r", got `.*`", "", what).removeprefix("Expected ").replace("`", "")
    return f"`{key}` is {'not shown' if secret else repr(found)}, but {expected} was expected"


def _positive(text: str) -> float:
    if (seconds := parse_seconds(text)) <= 0:
        raise BadRequestError(f'"{text}" is no time to wait: more than 0 was expected')
    return seconds


def _check_values(config: Config, main: Path) -> None:
    """What types cannot say: durations and sizes must parse, numbers must not be negative."""
    checks: list[tuple[Path, str, Any]] = [
        (main, "server.shutdown_grace", lambda: config.server.grace),
        (main, "server.header_timeout", lambda: _positive(config.server.header_timeout)),
        (main, "server.idle_timeout", lambda: _positive(config.server.idle_timeout)),
        (main, "server.unread_timeout", lambda: parse_seconds(config.server.unread_timeout)),
        (main, "fleet.keep_alive", lambda: config.fleet.keep_alive_seconds),
        (main, "fleet.load_timeout", lambda: config.fleet.load_timeout_seconds),
        (main, "fleet.adopt_within", lambda: config.fleet.adopt_within_seconds),
        (main, "fleet.stop_timeout", lambda: config.fleet.stop_timeout_seconds),
        (main, "fleet.memory", lambda: config.fleet.memory_bytes),
        (main, "fleet.gpu_overhead", lambda: config.fleet.gpu_overhead_bytes),
        (main, "fleet.sleep_memory", lambda: config.fleet.sleep_memory_bytes),
    ]
    for name, table in config.engine.items():
        file = config.paths.config / "engines.d" / f"{name}.toml"
        checks.append((file, "memory", lambda t=table: t.memory_bytes))
        checks.append((file, "memory_max", lambda t=table: t.limits))
    models = config.paths.config / "models.d"
    checks += [(models, f"memory_max` of `{model.name}", lambda m=model: m.limits) for model in config.model]
    for path, key, check in checks:
        try:
            check()
        except BadRequestError as failure:
            raise ConfigError(f"{path}: `{key}`: {failure}") from failure
    counts = [
        ("fleet", key, getattr(config.fleet, key)) for key in ("max_loaded_models", "max_queue", "restart_budget")
    ]
    counts += [("keys", key, getattr(config.keys, key)) for key in ("concurrent", "tokens_per_minute")]
    for table_name, key, value in counts:
        if value < 0:
            raise ConfigError(f"{main}: `{table_name}.{key}` is {value}, but 0 or more was expected")
