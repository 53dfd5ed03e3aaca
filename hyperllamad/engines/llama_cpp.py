"""llama.cpp's server for GGUF files: a llama-server on PATH, or the one inside the xllamacpp wheel.

Both get llama-server's options; for the wheel launchers/llama_server.py understands them.  What is known about it was
seen with xllamacpp 2026.10.11549.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperllamad.core.errors import BadRequestError, UnsupportedError
from hyperllamad.core.models import Capability, Device, Format, Kind, Model, Need, Settings
from hyperllamad.engines import bodies, causes, needs
from hyperllamad.engines.base import Explanation, Home, Launch, Place, Preparation, Probe, Recipe
from hyperllamad.engines.causes import Rule
from hyperllamad.engines.environment import python_engine

LAUNCHER = Path(__file__).with_name("launchers") / "llama_server.py"
PROMPT_CACHE = "1024"  # MiB of old prompts kept in memory; its own default, 8192, is as much as a small machine has

_SAMPLER_LAST = 0xFFFFFFFF  # a seed of this value asks for a random one
_MISSED = {  # what it would leave out in silence -> what that is
    "echo": "repeat the prompt",
    "min_tokens": "be told a least number of tokens",
    "stop_token_ids": "be told token ids to stop at",
}
_GAP = (("fim_pre", "prefix"), ("fim_suf", "suffix"), ("fim_mid", "middle"))  # a GGUF's newer and older names
_PHASES = (
    ("loading model", "weights"),
    ("initializing, n_slots", "warming"),
    ("initializing slots", "warming"),
    ("warming up", "warming"),
)
_DAMAGED = "the file is damaged or incomplete: fetch the model again"
_RULES = (
    Rule(
        r"failed to open GGUF file '([^']+)' \(No such file|gguf_init_from_file: failed to open '([^']+)'",
        "missing",
        "{0} does not exist",
        "it was moved or deleted; `hyperllamactl list` shows the models that are here",
    ),
    Rule(r"failed to open GGUF file '([^']+)' \(([^)]+)\)", "missing", "{0} cannot be opened: {1}", "check its owner"),
    Rule(r"invalid magic characters", "weights", "the model's file is not a GGUF file", _DAMAGED),
    Rule(
        r"tensor '([^']+)' data is not within the file bounds",
        "weights",
        "the GGUF file ends before its tensor {0}",
        _DAMAGED,
    ),
    Rule(
        r"unknown model architecture: '([^']+)'",
        "unsupported",
        '{title} does not know models of architecture "{0}"',
        "install a newer version of the engine",
    ),
    Rule(
        r"tensor '([^']+)' has invalid ggml type (\d+)",
        "unsupported",
        "{title} does not know the quantisation of the tensor {0} (GGUF type {1})",
        "install a newer version of the engine, or fetch another quantisation of the model",
    ),
    Rule(
        r"failed to read (?:key-value pairs|tensor info|header)",
        "weights",
        "the header of the GGUF file ends early",
        _DAMAGED,
    ),
    Rule(
        r"cudaMalloc failed: out of memory|ggml_gallocr_reserve.*CUDA|failed to allocate CUDA\d+ buffer",
        "gpu_memory",
        "the GPU's memory does not suffice",
        "unload other models, or give this one a smaller `context` or `parallel`",
        retry=True,
    ),
    Rule(
        r"failed to allocate (?:CPU )?buffer|unable to allocate \w+ buffer|failed to initialize the context",
        "host_memory",
        "the machine's memory does not suffice for the model and its context",
        "unload other models, or give this one a smaller `context` or `parallel`",
        retry=True,
    ),
    Rule(r"couldn't bind HTTP server socket", "address", "{title}'s socket was taken", retry=True),
    Rule(
        r"error: (?:unrecognized arguments: |invalid argument: |argument )(.*)",
        "bad_argument",
        "{title} does not take the argument {0}",
        "correct `args` in engines.d/llama_cpp.toml or in the model's file",
    ),
    Rule(
        r"failed to apply lora adapter: (.*?)(?: \(hint: .*)?$",
        "weights",
        "an adapter cannot be laid over the model: {0}",
        "take the model that the adapter was trained on",
    ),
    Rule(
        r"error loading model: (.*)",
        "weights",
        "the model cannot be loaded: {0}",
        "fetch the model again, or install a newer version of the engine",
    ),
)


class LlamaCpp:
    """See base.Engine."""

    name = "llama_cpp"
    title = "llama.cpp"
    formats = frozenset({Format.GGUF})
    trims_stops = True
    ignores: Mapping[str, Any] = {}
    slows = True
    bounded_scores = False
    overflow = r"(?:request \((\d+) tokens\) )?exceeds the available context size"
    vital = ""
    version = "2026.10.11549"
    variants = {  # noqa: RUF012  # as the protocol has it: read only
        "cpu": Recipe(
            requirements=("xllamacpp=={version}",),
            disk=140_000_000,
            self_test=("-c", "import xllamacpp; xllamacpp.CommonParams(); xllamacpp.Server"),
        )
    }
    probe = Probe(extra={"tokenize": "/tokenize", "detokenize": "/detokenize", "apply_template": "/apply-template"})

    def refusal(self, model: Model, home: Home) -> str:  # noqa: ARG002
        if model.format not in self.formats:
            return "it reads GGUF files only"
        return "it runs weights as they are, and `quantize` is set" if model.quantize else ""

    def need(self, model: Model, settings: Settings, home: Home, device: Device) -> Need:  # noqa: ARG002
        return needs.estimate(model, settings)

    def sleep_levels(self, model: Model, settings: Settings, home: Home) -> tuple[int, ...]:  # noqa: ARG002
        return ()

    def launch(self, model: Model, settings: Settings, home: Home, place: Place) -> Launch:
        system = not home.python
        argv = [home.path] if system else [home.python, str(LAUNCHER)]
        argv += ["--model", model.path]
        for adapter in model.adapters:
            argv += ["--lora", adapter]
        argv += ["--alias", bodies.served_name(model)]
        argv += ["--host", place.socket]
        argv += ["--ctx-size", str(settings.context * settings.parallel)]  # the slots share it out evenly
        argv += ["--parallel", str(settings.parallel)]
        argv += ["--jinja", "--metrics"]
        if bodies.embeds(model):  # a text is computed in one batch, so a batch must hold the longest
            longest = str(bodies.context(model, settings))
            purpose = "--reranking" if bodies.ranks(model) else "--embeddings"
            argv += [purpose, "--batch-size", longest, "--ubatch-size", longest]
        env = _system_environment(place) if system else python_engine(home, place)
        if not system:
            argv += ["--cache-ram", PROMPT_CACHE]
        return Launch((*argv, *settings.args), env | dict(settings.env), place.cwd)

    def prepare(self, home: Home, place: Place, env: Mapping[str, str]) -> Preparation | None:  # noqa: ARG002
        return None

    def phase(self, line: str) -> str:
        return next((phase for text, phase in _PHASES if text in line), "")

    def body(self, kind: Kind, body: dict[str, Any], model: Model, settings: Settings) -> dict[str, Any]:
        result = bodies.common(kind, body, model, settings)
        for name, meaning in _MISSED.items():
            if result.pop(name, None):
                raise UnsupportedError(f"llama.cpp cannot {meaning} (`{name}`)", hint="run the model on vLLM")
        if "repetition_penalty" in result:
            result["repeat_penalty"] = result.pop("repetition_penalty")
        if result.get("repeat_last_n") == -1:
            result["repeat_last_n"] = bodies.context(model, settings)  # Ollama's word for all of it
        if "seed" in result:
            result["seed"] = min(result["seed"] & _SAMPLER_LAST, _SAMPLER_LAST - 1)
        if kind is Kind.COMPLETION:
            return _completion(result, model)
        if "tools" in result and not (Capability.TOOLS in model.capabilities or "--chat-template" in settings.args):
            hint = "its chat template does not mention them"
            raise UnsupportedError(f"{model.name} does not support tools", hint=hint)
        if result.get("logprobs"):
            result["top_logprobs"] = max(result.get("top_logprobs", 0), 1)  # with 0 it gives none at all
        return result

    def explain_exit(self, code: int, lines: Sequence[str]) -> Explanation:
        return causes.explain(self.title, _RULES, code, lines)


def _system_environment(place: Place) -> dict[str, str]:
    """As variables what not every llama-server out there knows as an option: unknown variables do no harm."""
    return {
        "TMPDIR": place.tmp,
        "XDG_CACHE_HOME": place.cache,
        "LLAMA_CACHE": place.cache,
        "LLAMA_ARG_CACHE_RAM": PROMPT_CACHE,
        "LLAMA_ARG_UI": "0",
        "LLAMA_ARG_NO_WEBUI": "1",
        **({} if place.host.hub_access else {"LLAMA_OFFLINE": "1", "LLAMA_ARG_OFFLINE": "1"}),
    }


def _completion(body: dict[str, Any], model: Model) -> dict[str, Any]:
    """The completion route's own words: it knows no response_format, no suffix, and 0 logprobs are none to it."""
    result = dict(body)
    if wanted := result.pop("response_format", None):
        result["json_schema"] = wanted["json_schema"]["schema"] if "json_schema" in wanted else {"type": "object"}
    if "logprobs" in result:
        result["logprobs"] = max(result["logprobs"], 1)
    if suffix := result.pop("suffix", ""):
        result["prompt"] = _gap(result.get("prompt"), suffix, model)
    return result


def _gap(prompt: object, suffix: str, model: Model) -> list[int | str]:
    """Token ids and texts in turn, as its own route for filling gaps would put them together."""
    keys = [[f"tokenizer.ggml.{name}_token_id" for name in names] for names in _GAP]
    marks = [next((model.info[key] for key in pair if type(model.info.get(key)) is int), None) for pair in keys]
    if None in marks:
        raise bodies.no_insert(model)
    if not isinstance(prompt, str):
        raise BadRequestError("`suffix` needs a `prompt` that is one text")
    begin = [model.info["tokenizer.ggml.bos_token_id"]] if model.info.get("tokenizer.ggml.add_bos_token") else []
    return [*begin, marks[0], prompt, marks[1], suffix, marks[2]]


ENGINE = LlamaCpp()
