"""Which engine serves a model, or why none does."""

from __future__ import annotations

import dataclasses

import pytest

from hyperllamad.core.errors import NoEngineError
from hyperllamad.core.models import Model
from hyperllamad.engines.base import Home
from hyperllamad.engines.choose import choose
from tests.engines import samples

LLAMA, SYSTEM = samples.home("llama_cpp"), samples.home("llama_cpp", "system")
VLLM = samples.home("vllm", architectures=("LlamaForCausalLM",))
VLLM_GPU = samples.home("vllm", "cuda", architectures=("LlamaForCausalLM",))
MAX = samples.home("max", architectures=("LlamaForCausalLM", "OnlyInMax"))
MAX_GPU = samples.home("max", "cuda", architectures=("LlamaForCausalLM", "OnlyInMax"))
ODD = dataclasses.replace(samples.DIRECTORY, architecture="OnlyInMax")

FP8 = dataclasses.replace(samples.DIRECTORY, quantize="fp8")


def on(model: Model, engine: str) -> Model:
    return dataclasses.replace(model, engine=engine)


@pytest.mark.parametrize(
    ("model", "homes", "device", "chosen"),
    [
        (samples.GGUF, [VLLM, MAX, LLAMA], "cpu", LLAMA),
        (samples.GGUF, [SYSTEM, LLAMA], "cpu", SYSTEM),  # the order of the homes decides
        (samples.GGUF, [LLAMA, VLLM_GPU], "cuda", LLAMA),
        (samples.DIRECTORY, [LLAMA, MAX, VLLM], "cpu", VLLM),
        (samples.DIRECTORY, [MAX, LLAMA], "cpu", MAX),
        (samples.DIRECTORY, [VLLM, VLLM_GPU], "cuda", VLLM_GPU),
        (samples.DIRECTORY, [VLLM_GPU, VLLM], "cpu", VLLM),
        (samples.DIRECTORY, [VLLM, MAX_GPU], "cuda", MAX_GPU),  # a GPU is worth more than the order of the engines
        (samples.DIRECTORY, [VLLM], "cuda", VLLM),
        (samples.DIRECTORY, [samples.home("vllm")], "cpu", samples.home("vllm")),  # never asked what it knows: try it
        (ODD, [VLLM, MAX], "cpu", MAX),
        (FP8, [LLAMA, MAX_GPU, VLLM_GPU, VLLM], "cuda", VLLM_GPU),
        (on(samples.DIRECTORY, "max"), [VLLM, MAX], "cpu", MAX),
        (on(samples.DIRECTORY, "max"), [VLLM_GPU, MAX], "cuda", MAX),
    ],
)
def test_choice(model: Model, homes: list[Home], device: str, chosen: Home) -> None:
    assert choose(model, homes, device=device) == chosen


@pytest.mark.parametrize(
    ("model", "homes", "message", "hint"),
    [
        (
            samples.GGUF,
            [],
            (
                "no engine here can run 'smollm2:135m': llama.cpp: not installed; vLLM: it reads no GGUF files; "
                "MAX: it reads no GGUF files without a directory of their own"
            ),
            "`hyperllamactl engine install llama_cpp`",
        ),
        (
            samples.DIRECTORY,
            [LLAMA],
            (
                "no engine here can run 'smollm2:135m': llama.cpp: it reads GGUF files only; vLLM: not installed; "
                "MAX: not installed"
            ),
            "`hyperllamactl engine install vllm`, or `hyperllamactl engine install max`",
        ),
        (
            ODD,
            [VLLM],
            (
                "no engine here can run 'smollm2:135m': llama.cpp: it reads GGUF files only; "
                "vLLM: version 1.0 does not know the architecture OnlyInMax; MAX: not installed"
            ),
            "`hyperllamactl engine install max`",
        ),
        (
            on(samples.GGUF, "vllm"),
            [VLLM, LLAMA],
            "'smollm2:135m' is set to run on vllm, which cannot: vLLM: it reads no GGUF files",
            "llama.cpp could run it: take `engine` out of its file",
        ),
        (
            on(samples.DIRECTORY, "max"),
            [VLLM],
            "'smollm2:135m' is set to run on max, which cannot: MAX: not installed",
            "`hyperllamactl engine install max`, or vLLM could run it: take `engine` out of its file",
        ),
        (
            on(samples.GGUF, "max"),
            [],
            (
                "'smollm2:135m' is set to run on max, which cannot: "
                "MAX: it reads no GGUF files without a directory of their own"
            ),
            "without `engine` in its file, `hyperllamactl engine install llama_cpp`",
        ),
        (
            samples.DIRECTORY,
            [VLLM_GPU],
            (
                "no engine here can run 'smollm2:135m': llama.cpp: it reads GGUF files only; "
                "vLLM: it is installed for NVIDIA GPUs, and there is none here; MAX: not installed"
            ),
            "`hyperllamactl engine install vllm`, or `hyperllamactl engine install max`",
        ),
        (
            FP8,
            [VLLM, MAX, LLAMA],
            (
                "no engine here can run 'smollm2:135m': llama.cpp: it reads GGUF files only; "
                "vLLM: it follows `quantize` only on a GPU; MAX: it runs weights as they are, and `quantize` is set"
            ),
            "take `quantize` out of its file",
        ),
        (
            dataclasses.replace(FP8, quantization="AWQ"),
            [],
            (
                "no engine here can run 'smollm2:135m': llama.cpp: it reads GGUF files only; vLLM: its weights are AWQ "
                "already: `quantize` is for weights that are not quantised; MAX: it runs weights as they are, and "
                "`quantize` is set"
            ),
            "take `quantize` out of its file",
        ),
        (
            dataclasses.replace(samples.GGUF, quantize="fp8"),
            [LLAMA],
            (
                "no engine here can run 'smollm2:135m': llama.cpp: it runs weights as they are, and `quantize` is set; "
                "vLLM: it reads no GGUF files; MAX: it reads no GGUF files without a directory of their own"
            ),
            "take `quantize` out of its file",
        ),
        (
            on(samples.GGUF, "ollama"),
            [LLAMA],
            "'smollm2:135m' is set to run on \"ollama\", which is no engine",
            "the engines are llama_cpp, vllm, max",
        ),
    ],
)
def test_refusal_names_reasons_and_alternatives(model: Model, homes: list[Home], message: str, hint: str) -> None:
    with pytest.raises(NoEngineError) as caught:
        choose(model, homes, device="cpu")
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_max_runs_fewer_architectures_without_a_gpu() -> None:
    with pytest.raises(NoEngineError, match="does not run the architecture Foo without a GPU"):
        choose(dataclasses.replace(samples.DIRECTORY, architecture="Foo"), [MAX], device="cpu")
