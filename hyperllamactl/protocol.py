"""The admin wire: every command, reply, event and error, defined once and imported by both sides.

HTTP on a Unix socket: `POST /v1/<command>` with the command as JSON.  The reply is NDJSON: for a command that answers
at once one line of `reply`; for one that takes time any number of Progress lines, then one line that is `reply` or
Failed.  Within /v1 fields are only added; unknown fields are ignored on the wire.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar

import msgspec


class Role(enum.Enum):
    """Who may run a command."""

    READER = "reader"  # whoever the socket's mode lets in
    ADMIN = "admin"  # root, the daemon's own user, members of the admin group


class Reply(msgspec.Struct, kw_only=True, tag=True):
    """A line of an answer; `type` names it."""


class Progress(Reply, tag="progress"):
    """Something moved.  `done` and `total` are bytes or 0 when they do not apply; `elapsed` is seconds."""

    phase: str
    detail: str = ""
    done: int = 0
    total: int = 0
    elapsed: float = 0.0


class Failed(Reply, tag="failed"):
    """The command did not succeed: a code for programs, a sentence and a hint for people."""

    code: str
    message: str
    hint: str = ""


class Done(Reply, tag="done"):
    """The command succeeded and there is nothing more to tell."""

    message: str = ""


class InstanceRow(msgspec.Struct, kw_only=True):
    """One instance as `ps` shows it.  Sizes in bytes, times Unix seconds; `until` is null for ever."""

    name: str
    id: str  # the first 12 hex digits of the digest
    engine: str
    state: str  # starting, ready, draining, stopping, backoff, failed
    phase: str = ""  # of loading: starting, weights, compiling, warming
    size: int = 0
    size_gpu: int = 0
    processor: str = ""
    context: int = 0
    parallel: int = 0
    running: int = 0
    waiting: int = 0
    restarts: int = 0
    since: float = 0.0
    until: float | None = None
    pid: int = 0
    cause: str = ""  # why it failed or is in backoff


class Instances(Reply, tag="instances"):
    instances: list[InstanceRow]


class ModelRow(msgspec.Struct, kw_only=True):
    """One model as `list` shows it."""

    name: str
    id: str
    size: int
    modified_at: float
    format: str
    family: str
    parameter_size: str
    quantization: str
    engine: str = ""  # the engine that would serve it; "" when none can
    problem: str = ""  # why none can


class Models(Reply, tag="models"):
    models: list[ModelRow]


class ModelDetails(Reply, tag="model_details"):
    """`show`."""

    model: ModelRow
    path: str
    architecture: str
    context_length: int
    embedding_length: int
    capabilities: list[str]
    system: str = ""
    parameters: dict[str, Any] = {}
    license: str = ""


class StatusReport(Reply, tag="status_report"):
    """`status`: the daemon in one page."""

    version: str
    pid: int
    started_at: float
    url: str
    config: str
    config_error: str = ""
    engines: list[str] = []
    models: int = 0
    requests: int = 0
    waiting: int = 0
    memory: int = 0  # resident bytes of the daemon
    instances: list[InstanceRow] = []


class LogLine(Reply, tag="log_line"):
    """One line an engine printed; `at` is Unix seconds."""

    at: float
    text: str


class Change(Reply, tag="change"):
    """`watch`: an instance changed state or phase."""

    at: float
    name: str
    state: str
    phase: str = ""
    detail: str = ""


class EngineRow(msgspec.Struct, kw_only=True):
    """One engine home, or an engine that is not installed."""

    name: str
    title: str
    version: str = ""
    variant: str = ""
    id: str = ""
    path: str = ""
    size: int = 0
    installed_at: float = 0.0
    installed: bool = False
    in_use: bool = False
    variants: list[str] = []  # what can be installed


class Engines(Reply, tag="engines"):
    engines: list[EngineRow]


class Command(msgspec.Struct, kw_only=True):
    """A request; the class says who may send it and what the last line of the answer is."""

    role: ClassVar[Role] = Role.READER
    reply: ClassVar[type[Reply]] = Done
    streams: ClassVar[bool] = False  # True: lines come as they happen


class Status(Command):
    """Show the daemon: version, address, engines, what is loaded."""

    reply = StatusReport


class Ps(Command):
    """List the models that are loaded, loading or failed."""

    reply = Instances


class List(Command):
    """List the models in the store."""

    reply = Models


class Show(Command):
    """Show one model."""

    reply = ModelDetails

    model: str


class Load(Command):
    """Load a model and wait until it is ready."""

    role = Role.ADMIN
    streams = True

    model: str
    keep_alive: str | float | None = None


class Unload(Command):
    """Unload a model once its requests have ended; `now` cuts them off."""

    role = Role.ADMIN
    streams = True

    model: str
    now: bool = False


class Logs(Command):
    """Print what a model's engine wrote; `follow` keeps printing."""

    reply = Done
    streams = True

    model: str
    lines: int = 100
    follow: bool = False


class Watch(Command):
    """Print every change of state as it happens."""

    streams = True


class EngineList(Command):
    """List engines: installed homes and what can be installed."""

    reply = Engines


class EngineInstall(Command):
    """Install an engine into a home of its own."""

    role = Role.ADMIN
    streams = True

    name: str
    version: str = ""
    variant: str = ""


class EngineRemove(Command):
    """Remove an engine home that nothing uses."""

    role = Role.ADMIN
    streams = True

    name: str
    version: str = ""


COMMANDS: dict[str, type[Command]] = {
    "status": Status,
    "ps": Ps,
    "list": List,
    "show": Show,
    "load": Load,
    "unload": Unload,
    "logs": Logs,
    "watch": Watch,
    "engine-list": EngineList,
    "engine-install": EngineInstall,
    "engine-remove": EngineRemove,
}

Line = (
    Progress | Failed | Done | Instances | Models | ModelDetails | StatusReport | LogLine | Change | Engines
)  # every line an answer may hold
