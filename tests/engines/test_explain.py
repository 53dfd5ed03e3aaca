"""Why engines end, from logs recorded of real engines that failed (trimmed, paths changed)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from hyperllamad.engines import base, causes

LOGS = Path(__file__).with_name("logs")


class Case(NamedTuple):
    exit_code: int
    code: str
    words: str  # in the cause
    retry: bool = False


# vLLM: 0.32.0 (CPU); MAX: 26.7.0 (CPU); llama.cpp: xllamacpp 2026.10.11549.
RECORDED = {
    "llama_cpp-missing": Case(1, "missing", "/models/none.gguf does not exist"),
    "llama_cpp-not": Case(1, "weights", "is not a GGUF file"),
    "llama_cpp-head": Case(1, "weights", "header of the GGUF file ends early"),
    "llama_cpp-trunc": Case(1, "weights", "ends before its tensor blk.11.ffn_up.weight"),
    "llama_cpp-type": Case(1, "unsupported", "the quantisation of the tensor blk.0.attn_q.weight (GGUF type 250)"),
    "llama_cpp-arch": Case(1, "unsupported", 'architecture "zlama"'),
    "llama_cpp-hugectx": Case(1, "host_memory", "memory does not suffice", retry=True),
    "llama_cpp-adapter": Case(1, "weights", "over the model: tensor 'blk.10.ffn_down.weight' has incorrect shape"),
    "llama_cpp-flag": Case(2, "bad_argument", "llama.cpp does not take the argument --nonsense"),
    "llama_cpp-value": Case(2, "bad_argument", "--ctx-size: invalid value: 'many'"),
    "llama_cpp-address": Case(1, "address", "llama.cpp's socket was taken", retry=True),
    "vllm-missing": Case(1, "missing", "/models/none does not exist"),
    "vllm-garbage": Case(1, "weights", "are no safetensors at all"),
    "vllm-trunc": Case(1, "weights", "incomplete metadata, file not fully covered"),
    "vllm-noweights": Case(1, "missing", "holds no weights"),
    "vllm-badtype": Case(1, "unsupported", 'vLLM does not know models of type "foo"'),
    "vllm-badarch": Case(1, "unsupported", "vLLM does not know the architecture FooForCausalLM"),
    "vllm-badjson": Case(1, "weights", "a JSON file of the model cannot be read"),
    "vllm-context": Case(1, "context", "100000 tokens is more than the 8192"),
    "vllm-kvsmall": Case(1, "context", "one context of 8192 tokens needs 0.18 GiB of KV cache, and 0.03 GiB are left"),
    "vllm-memory": Case(1, "host_memory", "500.0 GiB for the KV cache do not fit into the 14.79 GiB", retry=True),
    "vllm-flag": Case(2, "bad_argument", "vLLM does not take the argument --nonsense"),
    "vllm-address": Case(1, "address", "vLLM's socket was taken", retry=True),
    "vllm-gguf": Case(1, "unsupported", "vLLM reads no GGUF files"),
    "vllm-shape": Case(1, "weights", "a hidden size of 512 cannot be shared by"),
    "vllm-torchvision": Case(1, "crash", "vLLM's installation is damaged: RuntimeError: operator torchvision::nms"),
    "vllm-killed": Case(0, "killed", "vLLM's process VllmWorker-0 died", retry=True),
    "max-missing": Case(1, "missing", "/models/none does not exist"),
    "max-garbage": Case(1, "weights", "no weights that MAX can read as float32"),
    "max-noweights": Case(1, "weights", "no weights that MAX can read as float32"),
    "max-truncated": Case(1, "weights", "MAX's worker crashed while it read the weights (Segmentation fault)"),
    "max-badtype": Case(1, "unsupported", 'MAX does not know models of type "foo"'),
    "max-badarch": Case(1, "unsupported", "MAX does not know the architecture FooForCausalLM"),
    "max-tokenizer": Case(1, "weights", "the model's tokenizer cannot be read"),
    "max-badjson": Case(1, "weights", "a JSON file of the model cannot be read"),
    "max-context": Case(1, "context", "100000 tokens is more than the 8192"),
    "max-bf16": Case(1, "weights", "no weights that MAX can read as q4_k"),
    "max-structured": Case(1, "bad_argument", "--enable-structured-output needs a GPU"),
    "max-flag": Case(2, "bad_argument", "MAX does not take the argument --nonsense"),
    "max-killed": Case(1, "killed", "MAX's worker was killed", retry=True),
    "max-segv": Case(1, "crash", "MAX's worker crashed (Segmentation fault)", retry=True),
}
READY = {  # the phases of a start that succeeded
    "llama_cpp-ready": ["weights", "warming"],
    "vllm-ready": ["starting", "weights", "warming"],
    "max-ready": ["starting", "weights", "compiling", "warming"],
}


def lines(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text(encoding="utf-8").splitlines()


def engine_of(name: str) -> base.Engine:
    return base.load(name.rpartition("-")[0])


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_failures_are_understood(name: str) -> None:
    case = RECORDED[name]
    found = engine_of(name).explain_exit(case.exit_code, lines(name))
    assert (found.code, found.retry) == (case.code, case.retry)
    assert case.words in found.cause
    assert found.hint or found.retry


@pytest.mark.parametrize("name", READY)
def test_recorded_starts_show_their_phases(name: str) -> None:
    seen: list[str] = []
    for line in lines(name):
        if (phase := engine_of(name).phase(line)) and phase not in seen[-1:]:
            seen.append(phase)
    assert seen == READY[name]


def test_every_log_has_its_case() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == RECORDED.keys() | READY.keys()


# Lines that no machine without a GPU writes, as the engines' sources have them.
WRITTEN = [
    ("vllm", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "gpu_memory", True),
    (
        "vllm",
        (
            "(EngineCore pid=9) ERROR 01-01 00:00:00 [core.py:1] ValueError: Free memory on device cuda:0 "
            "(3.1/79.2 GiB) on startup is less than desired GPU memory utilization (0.92, 72.8 GiB)."
        ),
        "gpu_memory",
        True,
    ),
    ("vllm", "ValueError: No available memory for the cache blocks.", "gpu_memory", False),
    ("vllm", "RuntimeError: Failed to infer device type", "driver", False),
    ("vllm", "RuntimeError: CUDA driver version is insufficient for CUDA runtime version", "driver", False),
    ("vllm", "OSError: [Errno 28] No space left on device", "disk", True),
    ("vllm", "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "host_memory", True),
    ("vllm", "ValueError: Couldn't instantiate the backend tokenizer from one of: ", "weights", False),
    ("vllm", "  Value error, Unknown quantization method: foo. Must be one of ['awq', [type=...", "unsupported", False),
    ("vllm", "ValueError: There is no module or parameter named 'normal' in LlamaModel.", "weights", False),
    ("max", "ValueError: GPU id 0 requested but no GPUs are available. Use valid device IDs", "driver", False),
    ("vllm", "OSError: AF_UNIX path too long", "bad_argument", False),
    ("max", "RuntimeError: Model size exceeds available memory (15.0 GiB > 10.2 GiB). ", "gpu_memory", True),
    ("max", "ERROR: Generated out-of-vocabulary token_id=9223372036854775807", "crash", False),
    (
        "max",
        "hyperllama launcher: this version of MAX cannot be put on a Unix socket: no attribute 'fastapi_config'",
        "unsupported",
        False,
    ),
    ("llama_cpp", "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory", "gpu_memory", True),
    (
        "llama_cpp",
        "hyperllama launcher: this version of xllamacpp cannot be used: no CommonParams",
        "unsupported",
        False,
    ),
]


@pytest.mark.parametrize(("engine", "line", "code", "retry"), WRITTEN)
def test_other_lines_are_understood(engine: str, line: str, code: str, retry: bool) -> None:
    found = base.load(engine).explain_exit(1, ["something else", line, "and more"])
    assert (found.code, found.retry) == (code, retry)


def test_max_without_a_gpu_lacks_the_machines_memory() -> None:
    log = ["INFO: devices: cpu[-1]", "RuntimeError: Model size exceeds available memory (15.0 GiB > 10.2 GiB)."]
    found = base.load("max").explain_exit(1, log)
    assert (found.code, found.cause) == ("host_memory", "the model takes 15.0 GiB and 10.2 GiB of memory are free")


@pytest.mark.parametrize("engine", base.NAMES)
@pytest.mark.parametrize(
    ("exit_code", "code", "words", "retry"),
    [
        (0, "crash", "ended by itself with exit status 0", True),  # vLLM's, when its core was killed
        (1, "crash", "exit status 1", True),
        (-9, "killed", "ran out of memory", True),
        (-11, "crash", "SIGSEGV", True),
        (-6, "crash", "SIGABRT", True),
        (-4, "unsupported", "instructions this CPU does not have", False),
        (-15, "told", "told to end by somebody else", True),
        (-40, "crash", "signal 40", True),
    ],
)
def test_an_end_without_a_word(engine: str, exit_code: int, code: str, words: str, retry: bool) -> None:
    found = base.load(engine).explain_exit(exit_code, [])
    assert (found.code, found.retry) == (code, retry)
    assert words in found.cause


def test_the_innermost_process_knows_best() -> None:
    log = [
        "(Worker pid=3) ERROR 11-21 21:58:12 [executor.py:953] KeyError: 'first'",
        "(Worker pid=3) ERROR 11-21 21:58:12 [executor.py:953] a.b.OddError: the reason",
        "(EngineCore pid=2) ERROR 11-21 21:58:14 [core.py:1510] RuntimeError: something of the core",
        "RuntimeError: Engine core initialization failed. See root cause above.",
        "ValueError: something of the parent",
    ]
    assert causes.last_exception(log) == "the reason (OddError)"
    assert causes.last_exception(log[2:]) == "something of the core (RuntimeError)"
    assert causes.last_exception(log[3:]) == "something of the parent (ValueError)"
    assert not causes.last_exception(log[3:4])


def test_a_quoted_line_is_not_endless() -> None:
    assert len(causes.explain("X", (), 1, [f"ValueError: {'x' * 5000}"]).cause) < 400


def test_a_kill_for_no_lack_of_memory_was_somebodys_wish() -> None:
    killed = base.load("vllm").explain_exit(-9, [])
    assert "somebody" in causes.not_for_memory("vLLM", killed).cause
    assert causes.not_for_memory("vLLM", killed).retry
    crashed = base.load("vllm").explain_exit(-11, [])
    assert causes.not_for_memory("vLLM", crashed) is crashed
