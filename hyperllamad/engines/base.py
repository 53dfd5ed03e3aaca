"""What an engine must say about itself.  Every method is pure: it answers with data and never spawns, waits or talks.

Adding an engine is one file here that exports ENGINE, plus its line in NAMES and its file in etc/hyperllama/engines.d.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hyperllamad.core.models import Device, Format, Kind, Model, Need, Placement, Settings

NAMES = ("llama_cpp", "vllm", "max")  # in the order they are preferred when several could serve a model equally


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one variant of an engine is installed into a virtual environment of its own."""

    requirements: tuple[str, ...]  # with {version} to fill in
    disk: int  # bytes the finished home needs, as measured; checked (with a margin) before the first byte
    remove: tuple[str, ...] = ()  # packages to take out again afterwards
    version: str = ""  # where this variant is released apart from the others; "" = Engine.version
    torch_backend: str = ""  # handed to uv when pip cannot find the right torch build
    self_test: tuple[str, ...] = ()  # arguments of the home's python; exit 0 = the home works


@dataclass(frozen=True, slots=True)
class Home:
    """An installed engine: a directory with a virtual environment, or a program found on the system."""

    id: str  # "vllm-0.32.0-cpu"; "llama_cpp-system" for a llama-server on PATH
    engine: str
    version: str
    variant: str  # "cpu", "cuda", "system"
    path: str  # the directory; for "system" the program itself
    python: str = ""  # interpreter of the virtual environment; "" for "system"
    architectures: frozenset[str] = frozenset()  # config.json names the engine knows; empty = not asked
    size: int = 0  # bytes on disk
    installed_at: float = 0.0  # Unix time

    @property
    def device(self) -> str:
        return "cuda" if self.variant == "cuda" else "cpu"


@dataclass(frozen=True, slots=True)
class Host:
    """What a child finds around it: the machine, and what the user allows engines to do (host.py reads it)."""

    cpus: tuple[int, ...] = ()  # those the child may run on; () = not known
    bfloat16: bool = False  # the CPU computes in it (AVX-512 BF16, AMX, Arm BF16); otherwise float32 is twice as fast
    telemetry: bool = False  # [engines] telemetry
    hub_access: bool = False  # [engines] hub_access


@dataclass(frozen=True, slots=True)
class Place:
    """Where one child lives: made before it starts, removed after it ended."""

    socket: str  # Unix socket the engine must listen on, under 108 bytes; ends in ".sock", by which llama.cpp knows it
    tmp: str  # private TMPDIR
    cwd: str  # empty working directory
    cache: str  # compile caches, kept per engine home
    host: Host = Host()
    group: str = ""  # control group of its processes; "" = they have none of their own
    room: Placement | None = None  # which GPUs, and how much of their memory; None = nobody measures the memory here

    @property
    def orders(self) -> str:
        """Unix socket on which a prepared process waits for what it is to become."""
        return f"{self.socket.rpartition('/')[0]}/go.sock"


@dataclass(frozen=True, slots=True)
class Launch:
    """A child process as data."""

    argv: tuple[str, ...]
    env: Mapping[str, str]  # on top of a minimal environment (PATH, HOME, LANG, CUDA_VISIBLE_DEVICES)
    cwd: str


@dataclass(frozen=True, slots=True)
class Preparation:
    """A process that does whatever a start can do before it is known which model it is for."""

    launch: Launch  # with the environment every start in this home has; it waits at Place.orders
    says: str  # part of the line it prints once it waits
    late: frozenset[str]  # variables that a model's launch may still add or change
    program: int = 2  # words of the command before its options: interpreter and file


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an engine ended, for people (cause, advice) and for the fleet (retry)."""

    code: str  # "gpu_memory", "host_memory", "bad_argument", "unsupported", "weights", "missing", "crash", ...
    cause: str  # one sentence in plain words
    hint: str = ""  # what to try
    retry: bool = True  # False: starting it again the same way would fail the same way


@dataclass(frozen=True, slots=True)
class Probe:
    """Paths on the engine's own socket."""

    ready: str = "/health"  # the first 200 means ready
    metrics: str = "/metrics"
    extra: Mapping[str, str] = field(default_factory=dict)
    token_ids: bool = False  # streams tell the ids of prompt and answer when `return_token_ids` asks for them
    sleep: str = ""  # POST, with {level} to fill in; answered when it sleeps
    wake: str = ""  # POST; answered when it is awake
    ahead: bool = False  # a connection that waits for its request costs it nothing
    begins_early: bool = False  # a stream's head comes once the request is taken in, before there is a token
    # POST with this body, once it serves: what makes sleep quick
    before_sleep: tuple[str, Mapping[str, Any]] | None = None


class Engine(Protocol):
    """One engine, described."""

    name: str
    title: str  # as people write it: "vLLM"
    formats: frozenset[Format]
    trims_stops: bool  # a stop string never shows up in streamed text
    ignores: Mapping[str, Any]  # fields that are nothing to it -> the value by which nothing is lost
    slows: bool  # a step takes the longer the more answers are in it, so that many at once gain little
    bounded_scores: bool  # relevance lies between 0 and 1; where not, the front brings it there
    overflow: str  # matches its refusal of a prompt that is too long; a group that matches is the count of its tokens
    vital: str  # matches the command lines of the worker processes it cannot live without; "" = has none
    version: str  # the version the recipes below were tried with
    variants: Mapping[str, Recipe]
    probe: Probe

    def refusal(self, model: Model, home: Home) -> str:
        """Why this home cannot run this model, in a clause ("it reads no GGUF files"); "" when it can."""

    def need(self, model: Model, settings: Settings, home: Home, device: Device) -> Need:
        """The memory an instance would take on devices like this one, as far as the model's files tell."""

    def sleep_levels(self, model: Model, settings: Settings, home: Home) -> tuple[int, ...]:
        """How deep an instance can sleep and be woken, best first: 1 keeps the weights in host memory, 2 drops them.

        () = not at all, or not so that one could rely on it.
        """

    def launch(self, model: Model, settings: Settings, home: Home, place: Place) -> Launch:
        """The command that serves `model` on `place.socket`; the model is called `model.digest[:12]` inside."""

    def prepare(self, home: Home, place: Place, env: Mapping[str, str]) -> Preparation | None:
        """A process that any launch in this home can take over; `env` is the configuration's.  None = no such thing.

        It takes its orders as launchers/vllm_serve.py does.
        """

    def phase(self, line: str) -> str:
        """The phase of loading a log line announces: starting, weights, compiling, warming; "" when none."""

    def body(self, kind: Kind, body: dict[str, Any], model: Model, settings: Settings) -> dict[str, Any]:
        """An OpenAI body changed to what this engine understands.

        Raises BadRequestError for a wrong value, UnsupportedError for what the engine or the model cannot do.
        """

    def explain_exit(self, code: int, lines: Sequence[str]) -> Explanation:
        """Why the child ended: `code` as subprocess gives it (negative = signal), `lines` the end of its log."""


def load(name: str) -> Engine:
    """The engine of that name; raises KeyError for a name not in NAMES."""
    if name not in NAMES:
        raise KeyError(name)
    engine: Engine = importlib.import_module(f"hyperllamad.engines.{name}").ENGINE
    return engine
