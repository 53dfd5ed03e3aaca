"""The nouns every room shares: a model, the settings it runs with, and what names an instance.

All frozen, all plain data.  Sizes are bytes, contexts are tokens, times are seconds unless a name says otherwise.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hyperllamad.core.names import ModelName


class Format(enum.StrEnum):
    """How the weights lie on disk."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"  # a Hugging Face directory


class Capability(enum.StrEnum):
    """What a model can do, in the words of Ollama's `capabilities`."""

    COMPLETION = "completion"
    TOOLS = "tools"
    INSERT = "insert"
    VISION = "vision"
    EMBEDDING = "embedding"
    THINKING = "thinking"


class Kind(enum.StrEnum):
    """What is asked of an engine; names the route and the shape of the body (OpenAI's)."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"
    EMBED = "/v1/embeddings"
    RERANK = "/v1/rerank"


class Message(NamedTuple):
    """One turn of a conversation that a variant begins with."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What the processes of one engine may use together, where a control group enforces it; 0 = no limit."""

    memory: int = 0  # bytes of the machine's memory
    tasks: int = 0  # processes and threads
    cpu_weight: int = 0  # 1 to 10,000, against 100 of everybody else; 0 = 100

    def over(self, other: Limits) -> Limits:
        """Those stated here, else those of `other`."""
        return Limits(self.memory or other.memory, self.tasks or other.tasks, self.cpu_weight or other.cpu_weight)


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Model:
    """A name and its files, with what they say about themselves."""

    name: ModelName
    path: str  # the GGUF file, or the Hugging Face directory
    format: Format
    architecture: str  # "llama" for a GGUF, "LlamaForCausalLM" for a directory: as the files spell it
    family: str  # lower-case family as Ollama shows it: "llama"
    size: int  # bytes of all weight files
    digest: str  # 64 hex digits that change when the weights change
    modified_at: float  # Unix time
    parameter_count: int = 0
    quantization: str = ""  # "Q4_1", "BF16", ...
    context_length: int = 0  # trained; 0 = the files do not say
    embedding_length: int = 0
    capabilities: frozenset[Capability] = frozenset({Capability.COMPLETION})
    chat_template: str = ""  # Jinja text from the files
    info: Mapping[str, Any] = field(default_factory=dict, compare=False)  # GGUF-style keys for /api/show
    # What a variant (store/overlays.py) or models.d adds:
    parent: str = ""  # of a variant: the name it was created from
    system: str = ""
    template: str = ""  # stated with TEMPLATE, as it was given; "" = chat_template holds
    messages: tuple[Message, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict, compare=False)  # Ollama options
    license: str = ""
    adapters: tuple[str, ...] = ()  # paths of LoRA adapters over the weights; `digest` and `size` count them
    engine: str = ""  # stated by the user; "" = choose
    context: int = 0  # stated by the user; 0 = choose
    parallel: int = 0  # stated by the user; 0 = choose
    quantize: str = ""  # stated by the user: what the engine makes of the weights as it loads them, "fp8"
    engine_args: tuple[str, ...] = ()
    limits: Limits = UNLIMITED

    @property
    def parameter_size(self) -> str:
        """As Ollama prints it: 134.52M, 8.0B."""
        n = self.parameter_count
        for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
            if n >= size:
                return f"{n / size:.1f}{unit}" if unit in "TB" else f"{n / size:.2f}{unit}"
        return str(n) if n else ""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run a model.  Two requests share an instance when model files and settings are equal."""

    engine: str  # "vllm", "max", "llama_cpp"
    home: str  # id of the engine home, so that a new version is a new instance
    device: str  # "cpu" or "cuda"
    context: int  # tokens per sequence
    parallel: int  # sequences at once
    kv_cache_bytes: int = 0  # 0 = the engine decides
    args: tuple[str, ...] = ()  # extra arguments, last on the command line
    env: tuple[tuple[str, str], ...] = ()
    limits: Limits = UNLIMITED
    quantize: str = ""  # what the engine makes of the weights as it loads them: "fp8"

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change when any setting changes."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Need:
    """The memory an instance takes, before it is known where: an engine's estimate, or what was learned.  Bytes."""

    weights: int
    kv_cache: int = 0  # wanted, for the context and the parallel requests of the settings
    overhead: int = 0  # on every device: the driver's context, graphs, buffers
    kv_least: int | None = None  # with less the engine does not start; None = the KV cache cannot be made smaller
    asleep: int = 0  # what is left on every device while it sleeps
    gpus: tuple[int, ...] = (1,)  # degrees of tensor parallelism it can be run with, ascending
    exclusive_start: bool = False  # sizes itself from the memory that is free while it starts, so it starts alone

    @property
    def total(self) -> int:
        """On one device."""
        return self.weights + self.kv_cache + self.overhead

    def share(self, degree: int) -> int:
        """On each of `degree` devices."""
        return -(-(self.weights + self.kv_cache) // degree) + self.overhead


HOST = "host"  # the id of the one device of a machine without GPUs: its memory


@dataclass(frozen=True, slots=True)
class Device:
    """Memory that models are placed in, as it was measured: a GPU, or the host's.  Bytes."""

    id: str  # the GPU's uuid, or HOST
    index: int  # the driver's number of the GPU; -1 for the host
    total: int  # what may be used at all: less than the hardware has where a limit is set
    free: int  # what the driver, or the kernel, would still give
    kind: str = ""  # "NVIDIA H100 80GB HBM3": needs learned on one kind hold for that kind
    problem: str = ""  # why nothing may be placed there, a clause; "" when it may

    @property
    def name(self) -> str:
        """As people read it: "GPU 0", "memory"."""
        return "memory" if self.id == HOST else f"GPU {self.index}"


@dataclass(frozen=True, slots=True)
class Share:
    """One device's part of a placement."""

    device: str  # Device.id
    index: int  # Device.index
    total: int  # bytes of the device: engines that want a fraction make it of this
    bytes: int  # reserved for the instance: it must not take more
    kv_cache: int  # the part of it that is meant for the KV cache


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an instance may take how much memory.  No part of its key: the same instance may lie elsewhere tomorrow."""

    shares: tuple[Share, ...]

    @property
    def bytes(self) -> int:
        return sum(share.bytes for share in self.shares)

    @property
    def kv_cache(self) -> int:
        """On all devices together."""
        return sum(share.kv_cache for share in self.shares)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the fleet must know to decide about an instance, before there is one."""

    need: Need = Need(0)
    gpu: bool = False  # lies on GPUs; False = in host memory
    parallel: int = 0  # requests it answers at once; 0 = any number
    sleep_levels: tuple[int, ...] = ()  # see Engine.sleep_levels
    pinned: bool = False  # is never sent away for another
    load_seconds: float = 30.0  # from its start to ready, as far as is known
    wake_seconds: float = 1.0
    slows: bool = False  # each answer more makes the others slower
    tells_begin: bool = False  # whoever serves a request says when its engine has taken it in: Fleet.begun()


NO_TERMS = Terms()  # nothing is known of it, so nothing is counted


class Key(NamedTuple):
    """What names an instance: which weights, run how."""

    digest: str
    settings: str  # Settings.fingerprint

    def __str__(self) -> str:
        return f"{self.digest[:12]}-{self.settings}"


def key_of(model: Model, settings: Settings) -> Key:
    """Two names of the same weights with the same settings are one instance, as in Ollama."""
    return Key(model.digest, settings.fingerprint)
