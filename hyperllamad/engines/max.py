"""Modular MAX for Hugging Face directories, on a Unix socket through launchers/max_uds.py.

What is known about it was seen with MAX 26.7.0 on two CPUs.  It ends the whole server for some requests that are merely
wrong and ignores others in silence, so a body for it is built from a list of what it is known to honour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperllamad.core.errors import UnsupportedError
from hyperllamad.core.models import Device, Format, Kind, Model, Need, Placement, Settings
from hyperllamad.engines import bodies, causes, families, needs
from hyperllamad.engines.base import Explanation, Home, Launch, Place, Preparation, Probe, Recipe
from hyperllamad.engines.causes import Rule
from hyperllamad.engines.environment import check_room_for_sockets, python_engine, visible
from hyperllamad.engines.families import Ways

LAUNCHER = Path(__file__).with_name("launchers") / "max_uds.py"
PROCESSES = 1_600_000_000  # bytes its processes take on a CPU besides weights and cache
ON_GPU = 4 << 30  # bytes of a GPU besides weights and cache; estimated
SMALLEST_CONTEXT = 2048  # tokens; from there only doublings, because every new length is compiled anew (a minute)
MOST_LOGPROBS = 7
SOCKET_NAME = 42  # bytes it reserves for one under TMPDIR: 18 digits with a suffix of up to 24
FIXED_SEED = 1  # its seed 0 means a random one
_LARGEST_SEED = (1 << 63) - 1

_ANY = (
    {"model", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream", "stream_options"}
    | {"repetition_penalty", "presence_penalty", "frequency_penalty"}
    | {"min_tokens", "stop_token_ids", "ignore_eos", "logprobs", "return_token_ids"}
)
_HONOURED = {
    Kind.CHAT: _ANY
    | {"messages", "tools", "tool_choice", "top_logprobs", "chat_template_kwargs", "reasoning_effort"}
    | {"response_format"},
    Kind.COMPLETION: _ANY | {"prompt"},
    Kind.EMBED: frozenset({"model", "input"}),  # it always answers with lists of numbers, and counts no tokens
}
_EMBEDDERS = frozenset({"BertModel", "MPNetForMaskedLM"})  # Qwen3's encoder compiled for minutes and took 14 GB
_MEAN = 1  # GGUF's number for it
_PHASES = (
    ("Initializing model pipeline", "weights"),
    ("Building model graph", "compiling"),
    ("Compiling", "compiling"),
    ("Still compiling", "compiling"),
    ("compiling, and initializing", "compiling"),
    ("Model pipeline initialized", "warming"),
    ("Starting server", "starting"),
)
_READY = "Server ready"
_ON_CPU = "devices: cpu["
_LESS_MEMORY = "unload other models, or give this one a smaller `context` or `parallel`"
_DAMAGED = "the files are damaged or incomplete: fetch the model again"
_RULES = (
    Rule(
        r"compatible weights cannot be found for '(\w+)'",
        "weights",
        "the model's directory holds no weights that {title} can read as {0}",
        _DAMAGED,
    ),
    Rule(
        r"Architecture '(\w+)' not found in registry",
        "unsupported",
        "{title} does not know the architecture {0}",
        "install a newer version of the engine, or choose another engine for the model",
    ),
    Rule(
        r"provided max_length \((\d+)\) exceeds .*max_position_embeddings \((\d+)\)",
        "context",
        "a context of {0} tokens is more than the {1} the model was trained for",
        "set a smaller `context` for this model",
    ),
    Rule(
        r"GPU id (\d+) requested but no GPUs are available",
        "driver",
        "{title} was told to use GPU {0}, and finds none",
        "check the NVIDIA driver, or take --devices out of `args`",
    ),
    Rule(
        r"No such option '?(--[\w-]+)|Invalid value for '?(--[\w-]+)",
        "bad_argument",
        "{title} does not take the argument {0}",
        "correct `args` in engines.d/max.toml or in the model's file",
    ),
    Rule(
        r"enable_structured_output is not currently supported on CPU",
        "bad_argument",
        "--enable-structured-output needs a GPU",
        "take it out of `args`",
    ),
    Rule(
        r"out-of-vocabulary token_id",
        "crash",
        "the model computed a token that does not exist: its weights are damaged, or {title} reads them wrongly",
        "fetch the model again, or choose another engine for it",
    ),
    Rule(
        r"Model size exceeds available memory \((\S+ ?\S+) > (\S+ ?\S+)\)",
        "gpu_memory",
        "the model takes {0} and {1} of memory are free",
        _LESS_MEMORY,
        retry=True,
    ),
    Rule(
        r"kv cache memory use exceeds available memory|Insufficient cache memory|GPU ran out of memory",
        "gpu_memory",
        "the memory does not suffice for the model and its context",
        _LESS_MEMORY,
        retry=True,
    ),
)
_KILLED = Rule(
    r"Worker crashed \(Killed\)",
    "killed",
    "{title}'s worker was killed, most likely because the machine ran out of memory",
    _LESS_MEMORY,
    retry=True,
)
_WHILE_LOADING = Rule(
    r"Worker crashed \((Segmentation fault|Bus error)\)",
    "weights",
    "{title}'s worker crashed while it read the weights ({0})",
    _DAMAGED,
)
_WHILE_SERVING = Rule(
    r"Worker crashed \(([^)]+)\)",
    "crash",
    "{title}'s worker crashed ({0})",
    "`hyperllamactl logs` shows more",
    retry=True,
)


class Max:
    """See base.Engine."""

    name = "max"
    title = "MAX"
    formats = frozenset({Format.SAFETENSORS})
    trims_stops = False  # it stops by itself, after the text went out
    ignores = {  # noqa: RUF012  # as the protocol has it: read only
        "min_p": 0.0,
        "typical_p": 1.0,
        "repeat_last_n": 64,
        "parallel_tool_calls": True,
    }
    slows = False
    bounded_scores = True
    overflow = r"Prompt is too long: (\d+) tokens"
    vital = r"multiprocessing\.spawn"  # the model worker; the resource tracker is called otherwise
    version = "26.7.0"
    variants = {  # noqa: RUF012  # as the protocol has it: read only
        variant: Recipe(
            requirements=("max[serve]=={version}",),
            disk=1_400_000_000,
            self_test=("-c", "import max._entrypoints.pipelines"),
        )
        for variant in ("cpu", "cuda")  # one wheel for both
    }
    probe = Probe(metrics="/metrics/", token_ids=True, ahead=True)  # without the last slash it redirects

    def refusal(self, model: Model, home: Home) -> str:
        if model.format not in self.formats:
            return "it reads no GGUF files without a directory of their own"
        if bodies.embeds(model) and (reason := _no_encoder(model)):
            return reason
        if home.architectures and model.architecture not in home.architectures:
            without_gpu = " without a GPU" if home.device == "cpu" else ""
            return f"version {home.version} does not run the architecture {model.architecture}{without_gpu}"
        return "it runs weights as they are, and `quantize` is set" if model.quantize else ""

    def need(self, model: Model, settings: Settings, home: Home, device: Device) -> Need:  # noqa: ARG002
        need = needs.estimate(model, settings)
        if settings.device == "cpu":  # where it reads bfloat16 weights into float32
            return replace(need, weights=2 * model.size, overhead=PROCESSES)
        least = min(need.kv_cache, needs.sequence_bytes(model, settings) * 9 // 8)
        return replace(need, overhead=ON_GPU, kv_least=least, gpus=needs.degrees(model), exclusive_start=True)

    def sleep_levels(self, model: Model, settings: Settings, home: Home) -> tuple[int, ...]:  # noqa: ARG002
        return ()

    def launch(self, model: Model, settings: Settings, home: Home, place: Place) -> Launch:
        cpu = settings.device == "cpu"
        argv = [home.python, str(LAUNCHER), place.socket, "serve"]
        argv += ["--model", model.path]
        argv += ["--served-model-name", bodies.served_name(model)]
        argv += ["--host", "127.0.0.1"]
        argv += ["--devices", "cpu"] if cpu else _gpus(place.room)
        argv += ["--max-length", str(_compiled_context(model, settings))]
        argv += ["--max-batch-size", str(settings.parallel)]
        argv += _purpose(model, cpu=cpu)
        if cpu:  # where it computes in float32 or in a few GGUF types; bfloat16 weights are read into float32
            argv += ["--quantization-encoding", "float32"]
        env = python_engine(home, place) | {
            "MODULAR_CACHE_DIR": f"{place.cache}/modular",
            "MAX_SERVE_METRIC_RECORDING_METHOD": "ASYNCIO",  # metrics on the same socket instead of port 8001
        }
        if place.room is not None and not cpu:
            env |= visible(place.room)
        if not place.host.telemetry:
            env |= {"OTEL_SDK_DISABLED": "true", "MODULAR_TELEMETRY_ENABLED": "false"}
        env |= dict(settings.env)
        check_room_for_sockets(self.title, env, SOCKET_NAME)
        return Launch((*argv, *settings.args), env, place.cwd)

    def prepare(self, home: Home, place: Place, env: Mapping[str, str]) -> Preparation | None:  # noqa: ARG002
        return None

    def phase(self, line: str) -> str:
        return next((phase for text, phase in _PHASES if text in line), "")

    def body(self, kind: Kind, body: dict[str, Any], model: Model, settings: Settings) -> dict[str, Any]:
        if kind is Kind.RERANK:
            raise UnsupportedError("MAX does not rank documents", hint="run the model on llama.cpp or vLLM, which do")
        if kind is Kind.EMBED and not bodies.embeds(model):
            raise bodies.no_embeddings(model)
        ways = families.find(model)
        result = bodies.common(kind, body, model, settings)
        bodies.check_images(result, model)
        _refuse(result, model, settings, ways)
        result = bodies.thinking(bodies.inserted(result, model, ways), ways)
        result = {key: value for key, value in result.items() if key in _HONOURED[kind]}
        if "seed" in result:
            result["seed"] = (result["seed"] & _LARGEST_SEED) or FIXED_SEED
        if kind is Kind.COMPLETION and "logprobs" in result:
            result["logprobs"] = max(result["logprobs"], 1)  # 0 would be none at all
        for name in ("prompt", "input", "stop_token_ids"):
            _check_ids(result.get(name), model)
        return result

    def explain_exit(self, code: int, lines: Sequence[str]) -> Explanation:
        served = any(_READY in line for line in lines)
        died = (_KILLED, _WHILE_SERVING) if served else (_KILLED, _WHILE_LOADING, _WHILE_SERVING)
        explanation = causes.explain(self.title, _RULES, code, lines, late=died)
        if explanation.code == "gpu_memory" and any(_ON_CPU in line for line in lines):
            return replace(explanation, code="host_memory")
        return explanation


def _no_encoder(model: Model) -> str:
    """Why it cannot compute this model's embeddings, in a clause; "" when it can."""
    if model.architecture not in _EMBEDDERS:
        return f"it computes no embeddings with the architecture {model.architecture}"
    pooling = next((n for key, n in model.info.items() if key.endswith(".pooling_type")), _MEAN)
    return "" if pooling == _MEAN else "it takes the mean of a text's vectors, and this model was trained for another"


def _purpose(model: Model, *, cpu: bool) -> list[str]:
    if bodies.embeds(model):
        return ["--task", "embeddings_generation", "--pool-embeddings"]
    sampling = ["--enable-penalties", "--enable-min-tokens"]
    return sampling if cpu else [*sampling, "--enable-structured-output"]


def _gpus(room: Placement | None) -> list[str]:
    """Those it sees, and of their memory what was reserved.

    It takes its part of what is free while it starts, not of what there is, so beside others it gets less.
    """
    if room is None:
        return ["--devices", "gpu:0"]
    part = min(share.bytes / share.total for share in room.shares)
    devices = ",".join(str(number) for number in range(len(room.shares)))
    return ["--devices", f"gpu:{devices}", "--device-memory-utilization", f"{math.floor(part * 10_000) / 10_000:.4f}"]


def _compiled_context(model: Model, settings: Settings) -> int:
    """The length it runs with: never less than clients are told, and a few more tokens harm nobody."""
    length = SMALLEST_CONTEXT
    while length < bodies.context(model, settings):
        length *= 2
    return min(length, model.context_length or length)


def _refuse(body: dict[str, Any], model: Model, settings: Settings, ways: Ways) -> None:
    """What it would ignore in silence, or die of."""
    if "response_format" in body and settings.device == "cpu":
        hint = "run the model on vLLM or llama.cpp, or on a GPU"
        raise UnsupportedError("MAX cannot keep to a format without a GPU", hint=hint)
    if body.get("echo"):
        raise UnsupportedError("MAX cannot repeat the prompt (`echo`)")
    if body.get("n", 1) != 1:
        raise UnsupportedError("MAX gives one answer to a request (`n`)")
    if body.get("logit_bias"):
        raise UnsupportedError("MAX takes no `logit_bias`")
    if body.get("tool_choice", "auto") != "auto":
        raise UnsupportedError("MAX cannot be made to call a tool (`tool_choice`)", hint="run the model on vLLM")
    if "tools" in body and not ways.max_tools:
        hint = "run it on llama.cpp or vLLM, which can"
        raise UnsupportedError(f"MAX cannot read how {model.name} writes tool calls", hint=hint)
    asked = max(body.get("top_logprobs", 0), int(body.get("logprobs", 0)))
    if asked > MOST_LOGPROBS:
        raise UnsupportedError(f"MAX gives at most {MOST_LOGPROBS} alternatives to a token, not {asked}")


def _check_ids(prompt: object, model: Model) -> None:
    """A token it does not have ends the server, so none goes there unless it is known to exist."""
    if not isinstance(prompt, list) or not prompt or isinstance(prompt[0], str):
        return
    ids = [token for part in prompt for token in (part if isinstance(part, list) else [part])]
    size = bodies.vocabulary(model)
    if not size:
        raise UnsupportedError("MAX takes prompts as text only for this model", hint="send the text, not token ids")
    if (largest := max(ids)) >= size:
        raise UnsupportedError(f"{largest} is no token of this model", hint=f"its tokens are 0 to {size - 1}")


ENGINE = Max()
