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


class FilePart(msgspec.Struct, kw_only=True):
    """One of several files that are fetched side by side; bytes."""

    name: str
    done: int
    total: int


class Progress(Reply, tag="progress"):
    """Something moved.  `done` and `total` are bytes or 0 when they do not apply; `elapsed` is seconds."""

    phase: str  # one or two words: weights, downloading
    detail: str = ""
    done: int = 0
    total: int = 0
    elapsed: float = 0.0
    files: list[FilePart] = []  # that the command has fetched so far; `done` and `total` are their sums while it does


class Caution(Reply, tag="caution"):
    """Something to know before it goes wrong; the command goes on."""

    message: str


class Failed(Reply, tag="failed"):
    """The command did not succeed: a code for programs, a sentence and a hint for people."""

    code: str  # see the exit codes
    message: str  # what happened, to what
    hint: str = ""  # what to try


class Done(Reply, tag="done"):
    """The command succeeded and there is nothing more to tell."""

    message: str = ""


class InstanceRow(msgspec.Struct, kw_only=True):
    """One instance as `ps` shows it.  Sizes in bytes, times Unix seconds."""

    name: str
    id: str  # the first 12 hex digits of the digest
    engine: str
    state: str  # waiting (for room), starting, ready, settling, sleeping, asleep, waking, draining, stopping, ...
    phase: str = ""  # of loading: starting, weights, compiling, warming
    phases: dict[str, float] = {}  # seconds each phase of its load took
    size: int = 0  # memory in use
    size_gpu: int = 0  # the part of it on GPUs
    gpus: list[int] = []  # the driver's numbers of those it lies on
    reserved: int = 0  # memory it may take; 0 = nobody counts
    processor: str = ""  # 100% CPU, 100% GPU, or both shares
    context: int = 0  # tokens per request
    parallel: int = 0  # requests the engine answers at once
    running: int = 0  # requests being answered
    waiting: int = 0  # requests waiting for it
    restarts: int = 0  # crashes since it last worked
    since: float = 0.0  # when it came into this state
    until: float | None = None  # when a ready one is unloaded; null = never
    pid: int = 0  # 0 = no process
    cause: str = ""  # why it failed or is in backoff


class Instances(Reply, tag="instances"):
    """What is loaded, loading or failed."""

    instances: list[InstanceRow]


class ModelRow(msgspec.Struct, kw_only=True):
    """One model as `list` shows it."""

    name: str
    id: str  # the first 12 hex digits of the digest
    size: int  # bytes
    modified_at: float  # Unix seconds
    format: str  # gguf, safetensors
    family: str
    parameter_size: str  # 134.52M, 8.0B
    quantization: str
    engine: str = ""  # the engine that would serve it; "" when none can
    problem: str = ""  # why none can


class BrokenModel(msgspec.Struct, kw_only=True):
    """Something that was meant to be a model and cannot be used."""

    name: str
    path: str
    problem: str  # a sentence


class Models(Reply, tag="models"):
    """What is in the store, newest first."""

    models: list[ModelRow]
    broken: list[BrokenModel] = []


class ModelDetails(Reply, tag="model_details"):
    """`show`: everything known of one model."""

    model: ModelRow
    path: str
    architecture: str
    context_length: int  # tokens the model was trained for
    embedding_length: int
    capabilities: list[str]  # completion, tools, vision, embedding, ...
    system: str = ""  # the system message it comes with
    parameters: dict[str, Any] = {}  # the options it comes with
    license: str = ""


class StatusReport(Reply, tag="status_report"):
    """`status`: the daemon in one page."""

    version: str
    pid: int
    started_at: float  # Unix seconds
    url: str  # of the API
    config: str  # the directory it was read from
    config_error: str = ""  # why a newer configuration is not in force
    engines: list[str] = []  # homes in use
    models: int = 0  # in the store
    requests: int = 0  # being answered
    waiting: int = 0  # waiting for an instance
    memory: int = 0  # resident bytes of the daemon
    prepared: dict[str, int] = {}  # engine homes with a process that waits for a model, and the bytes it holds
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


class Decision(Reply, tag="decision"):
    """One decision of the daemon, with everything it was made from; `at` is Unix seconds."""

    at: float
    what: str  # placed, waits, refused, evicted, slept, woken, unloaded, restarted, failed, left, adopted
    model: str
    instance: str
    why: str  # a clause
    inputs: Any = None  # what was weighed; null = a time was up, or somebody gave an order
    outcome: Any = None  # what follows from the inputs, whenever they are weighed


class WhyReport(Reply, tag="why_report"):
    """`why`: what a model is now, and the decisions that led to it, oldest first."""

    model: str
    instances: list[InstanceRow] = []
    decisions: list[Decision] = []


class NeedRow(msgspec.Struct, kw_only=True):
    """Memory an instance takes, in bytes: as learned from its last load, or else estimated."""

    weights: int
    kv_cache: int
    overhead: int


class ShareRow(msgspec.Struct, kw_only=True):
    """Memory of one device."""

    gpu: int  # the driver's number; -1 = the machine's own memory
    size: int  # bytes


class LeavingRow(msgspec.Struct, kw_only=True):
    """A model that would make room."""

    model: str
    how: str  # sleeps, unloads
    requests: int  # that it would finish first
    seconds: float  # to bring it back


class LoadPlan(Reply, tag="load_plan"):
    """`plan load`: what would happen."""

    model: str
    engine: str
    outcome: str  # fits, waits, never, loaded
    why: str
    need: NeedRow | None = None
    shares: list[ShareRow] = []  # where it would lie
    leaving: list[LeavingRow] = []
    seconds: float = 0.0  # until it would be ready, once there is room


class EngineRow(msgspec.Struct, kw_only=True):
    """One engine home, or an engine that is not installed."""

    name: str
    title: str  # as people write it
    version: str = ""
    variant: str = ""  # cpu, cuda; system for a program that came with the system
    id: str = ""  # of the home
    path: str = ""
    size: int = 0  # bytes on disk
    installed_at: float = 0.0  # Unix seconds; 0 = not known
    installed: bool = False
    in_use: bool = False  # new instances run in it
    variants: list[str] = []  # what can be installed


class Engines(Reply, tag="engines"):
    """Every engine home, and every engine that has none."""

    engines: list[EngineRow]


class KeyRow(msgspec.Struct, kw_only=True):
    """One API key; the key itself is not kept."""

    name: str
    concurrent: int = 0  # requests at once; 0 = no limit
    tokens_per_minute: int = 0  # read and written; 0 = no limit
    created_at: float = 0.0  # Unix seconds; 0 = not known
    fixed: bool = False  # from a systemd credential: cannot be removed here


class Keys(Reply, tag="keys"):
    """Every API key."""

    keys: list[KeyRow]
    required: bool  # clients are asked for one
    file: str  # where they are kept


class KeyMade(Reply, tag="key_made"):
    """A new API key: the only time that it is told."""

    name: str
    key: str
    required: bool  # clients are asked for one


class GpuRow(msgspec.Struct, kw_only=True):
    """One GPU.  Memory in bytes."""

    index: int  # the driver's number
    uuid: str
    name: str
    capability: str  # compute capability: 8.9
    total: int
    free: int
    ours: int = 0  # held by engines of ours
    bandwidth: int = 0  # bytes a second; 0 = not known
    processes: int = 0  # that hold memory on it


class MachineReport(Reply, tag="machine_report"):
    """`info`: what models can be run with here.  Memory in bytes."""

    gpus: list[GpuRow] = []
    driver: str = ""  # version of NVIDIA's
    cuda: str = ""  # the newest version of CUDA it serves
    gpu_problem: str = ""  # why there is no GPU, or not all of them
    processor: str = ""
    cores: int = 0  # that may be used
    features: list[str] = []  # of the processor, those that engines make use of
    memory: int = 0  # that may be used
    available: int = 0
    ours: int = 0  # held by engines of ours
    engines: list[EngineRow] = []


class OfferRow(msgspec.Struct, kw_only=True):
    """One kind of a model of the catalogue on this machine.  Memory in bytes; needs and speeds are estimates."""

    name: str  # what to pull: qwen3:8b-fp8
    model: str  # qwen3:8b; pulled by this name, the first kind is taken
    repository: str
    kind: str  # bf16, fp8, awq, gptq, mxfp4, gguf
    engine: str
    device: str  # cuda, cpu
    need: int
    room: int  # what there is for it
    fits: bool
    single: float = 0.0  # tokens a second of one stream; 0 = not known
    together: float = 0.0  # of 64 streams
    why: str = ""
    parameters: int = 0
    context: int = 0  # tokens; 0 = not known
    license: str = ""
    gated: bool = False  # its publisher's terms must be accepted before it can be pulled
    embedding: bool = False


class Recommendations(Reply, tag="recommendations"):
    """`recommend`: the best kind first, for one model or for each."""

    offers: list[OfferRow]


class GarbageRow(msgspec.Struct, kw_only=True):
    """Something no name refers to."""

    path: str
    size: int  # bytes
    reason: str


class Collected(Reply, tag="collected"):
    """`gc`: what was removed, or would be."""

    items: list[GarbageRow]
    freed: int  # bytes
    dry_run: bool = False


class Turn(msgspec.Struct, kw_only=True):
    """One message of a conversation that a model begins with."""

    role: str  # system, user, assistant
    content: str


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


class Pull(Command):
    """Fetch a model from a hub, or what is missing of it."""

    role = Role.ADMIN
    streams = True

    model: str  # hf.co/org/repo[:variant], org/repo, or a short name such as qwen3:8b


class Remove(Command):
    """Remove a model from the store; a running copy stays until it is unloaded."""

    role = Role.ADMIN
    streams = True

    model: str


class Copy(Command):
    """Give a model a second name; no weights are copied."""

    role = Role.ADMIN
    streams = True

    source: str
    destination: str


class Create(Command):
    """Make a model from a Modelfile: another one with something added, or files on this machine, which are linked."""

    role = Role.ADMIN
    streams = True

    model: str  # the name to make
    base: str = ""  # FROM: a model, pulled if it is not here
    path: str = ""  # FROM: in its place, a GGUF file or a Hugging Face directory; absolute
    system: str = ""
    template: str = ""
    license: list[str] = []
    parameters: dict[str, Any] = {}
    messages: list[Turn] = []
    adapters: list[str] = []  # LoRA adapters in GGUF files on this machine; absolute paths


class CollectGarbage(Command):
    """Remove what no name refers to from the store, or only list it; caches of other programs are not touched."""

    role = Role.ADMIN
    reply = Collected
    streams = True

    dry_run: bool = False


class Info(Command):
    """Show what models can be run with here: GPUs, memory, driver, processor, engines."""

    reply = MachineReport


class Recommend(Command):
    """Say which models suit this machine, how fast to expect them and why; with a model, in which of its kinds."""

    reply = Recommendations

    model: str = ""  # a short name: qwen3:8b; "" = the best of each family
    every: bool = False  # also what does not fit


class Reload(Command):
    """Read the configuration anew: all of it is taken over, or nothing.

    What would now run otherwise is unloaded after its requests and loaded again; what would run as before is not
    touched.  A hang-up ends the wait for that only.
    """

    role = Role.ADMIN
    streams = True


class Load(Command):
    """Load a model and wait until it is ready."""

    role = Role.ADMIN
    reply = Instances
    streams = True

    model: str
    keep_alive: str | float | None = None  # "10m", or seconds; negative = for ever; null = as configured


class Warm(Command):
    """Load a model once and let it go again, so that what its engine compiles is there for the next start."""

    role = Role.ADMIN
    streams = True

    model: str


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
    lines: int = 100  # at most so many from before
    follow: bool = False


class Watch(Command):
    """Print every change of state as it happens."""

    streams = True


class Why(Command):
    """Say why a model is where it is: the decisions about it, newest last."""

    reply = WhyReport

    model: str


class PlanLoad(Command):
    """Say what loading a model would do now: where it would lie, who would make room, how long it would take."""

    reply = LoadPlan
    streams = True

    model: str


class Events(Command):
    """Print the daemon's decisions; `follow` keeps printing."""

    streams = True

    lines: int = 50  # at most so many from before; a thousand are kept
    follow: bool = False


class EngineList(Command):
    """List engines: installed homes and what can be installed."""

    reply = Engines


class EngineInstall(Command):
    """Install an engine into a home of its own."""

    role = Role.ADMIN
    streams = True

    name: str  # llama_cpp, vllm, max
    version: str = ""  # "" = the one this release was tried with
    variant: str = ""  # cpu, cuda; "" = what this machine can use


class EngineRemove(Command):
    """Remove an engine home that nothing uses; `force` removes it although new instances would run in it."""

    role = Role.ADMIN
    streams = True

    name: str  # llama_cpp, vllm, max
    version: str = ""  # "" = the only one there is
    variant: str = ""
    force: bool = False


class KeyNew(Command):
    """Make an API key and print it, once."""

    role = Role.ADMIN
    reply = KeyMade
    streams = True

    name: str  # who it is for: letters, digits, dots, dashes, underscores
    concurrent: int | None = None  # requests at once; 0 = no limit, null = as configured
    tokens_per_minute: int | None = None  # read and written; 0 = no limit, null = as configured


class KeyList(Command):
    """List the API keys: names and limits."""

    reply = Keys


class KeyRemove(Command):
    """Refuse an API key from now on."""

    role = Role.ADMIN
    streams = True

    name: str


COMMANDS: dict[str, type[Command]] = {
    "status": Status,
    "reload": Reload,
    "ps": Ps,
    "list": List,
    "show": Show,
    "pull": Pull,
    "rm": Remove,
    "cp": Copy,
    "create": Create,
    "gc": CollectGarbage,
    "info": Info,
    "recommend": Recommend,
    "load": Load,
    "warm": Warm,
    "unload": Unload,
    "logs": Logs,
    "watch": Watch,
    "why": Why,
    "plan-load": PlanLoad,
    "events": Events,
    "engine-list": EngineList,
    "engine-install": EngineInstall,
    "engine-remove": EngineRemove,
    "key-new": KeyNew,
    "key-list": KeyList,
    "key-remove": KeyRemove,
}

# Every line an answer may hold.
Line = (
    Progress
    | Caution
    | Failed
    | Done
    | Instances
    | Models
    | ModelDetails
    | StatusReport
    | LogLine
    | Change
    | Decision
    | WhyReport
    | LoadPlan
    | Engines
    | Keys
    | KeyMade
    | MachineReport
    | Recommendations
    | Collected
)
