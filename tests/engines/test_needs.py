"""Estimates of memory from what a model's files say."""

from __future__ import annotations

from typing import Any

import pytest

from hyperllamad.core.models import HOST, Device, Format, Model, Need, Settings
from hyperllamad.core.names import ModelName
from hyperllamad.engines import base, needs
from hyperllamad.engines.base import Host
from tests.engines import samples

GIB = 1 << 30
LLAMA_8B = {"llama.block_count": 32, "llama.attention.head_count": 32, "llama.attention.head_count_kv": 8}


def model(**fields: Any) -> Model:
    values: dict[str, Any] = {
        "name": ModelName.parse("m"),
        "path": "/m.gguf",
        "format": Format.GGUF,
        "architecture": "llama",
        "family": "llama",
        "size": 16 * GIB,
        "digest": "d" * 64,
        "modified_at": 0.0,
        "embedding_length": 4096,
        "context_length": 8192,
        "info": LLAMA_8B,
        **fields,
    }
    return Model(**values)


def settings(**fields: Any) -> Settings:
    values: dict[str, Any] = {"engine": "e", "home": "h", "device": "cpu", "context": 8192, "parallel": 4, **fields}
    return Settings(**values)


@pytest.mark.parametrize(
    ("changes", "per_token"),
    [
        ({}, 32 * 8 * 2 * 128 * 2),
        ({"llama.attention.key_length": 64, "llama.attention.value_length": 32}, 32 * 8 * (64 + 32) * 2),
        ({"llama.attention.head_count_kv": None}, 32 * 32 * 2 * 128 * 2),
        ({"llama.attention.head_count_kv": [0, 8, 8]}, 32 * 8 * 2 * 128 * 2),
    ],
)
def test_the_kv_cache_of_a_token(changes: dict[str, Any], per_token: int) -> None:
    assert needs.kv_bytes_per_token(model(info=LLAMA_8B | changes)) == per_token


def test_files_that_say_nothing_still_get_a_kv_cache() -> None:
    silent = model(info={})
    assert needs.kv_bytes_per_token(silent) * silent.context_length == silent.size // 8


def test_on_the_cpu_every_sequence_has_its_whole_context() -> None:
    need = needs.estimate(model(), settings())
    assert need == Need(weights=16 * GIB, kv_cache=4 * 8192 * 131072, overhead=needs.HOST_OVERHEAD)
    assert need.total == 20 * GIB + needs.HOST_OVERHEAD


@pytest.mark.parametrize(("parallel", "sequences"), [(256, 32), (64, 8), (16, 8), (4, 4)])
def test_on_a_gpu_many_sequences_share_a_paged_cache(parallel: int, sequences: int) -> None:
    assert needs.estimate(model(), settings(device="cuda", parallel=parallel)).kv_cache == sequences * GIB


def test_a_stated_kv_cache_is_what_is_needed() -> None:
    assert needs.estimate(model(), settings(kv_cache_bytes=3)).kv_cache == 3


def test_the_overhead_comes_again_on_every_device() -> None:
    assert Need(weights=10, kv_cache=5, overhead=2).share(2) == 10
    assert Need(weights=10, kv_cache=5, overhead=2).share(1) == 17


@pytest.mark.parametrize(
    ("heads", "kv_heads", "degrees"),
    [(32, 8, (1, 2, 4, 8)), (32, 2, (1, 2, 4, 8)), (9, 3, (1,)), (12, 12, (1, 2, 4)), (None, None, (1,))],
)
def test_heads_are_shared_out_evenly(heads: int | None, kv_heads: int | None, degrees: tuple[int, ...]) -> None:
    info = {"llama.attention.head_count": heads, "llama.attention.head_count_kv": kv_heads}
    assert needs.degrees(model(info=info)) == degrees


GPU = Device("GPU-1", 0, 80 * GIB, 79 * GIB, "NVIDIA H100 80GB HBM3")
MEMORY = Device(HOST, -1, 24 * GIB, 20 * GIB)
WEIGHTS = 14 * GIB  # of eight billion parameters in bfloat16


def need(engine: str, **changes: Any) -> Need:
    """What an 8B model takes, with the settings of a GPU unless told otherwise."""
    stated = settings(**{"engine": engine, "device": "cuda", "context": 4096, "parallel": 256, **changes})
    device = GPU if stated.device == "cuda" else MEMORY
    home = samples.home(engine, "cuda" if stated.device == "cuda" else "cpu")
    return base.load(engine).need(model(size=WEIGHTS), stated, home, device)


def test_vllm_on_a_gpu() -> None:
    sequence = 131072 * 4096
    whole = need("vllm")
    assert whole == Need(WEIGHTS, 32 * sequence, 3 * GIB, sequence * 9 // 8, 2 * GIB, (1, 2, 4, 8))
    assert whole.total == 33 * GIB  # so that two of them share 80 GiB
    assert need("vllm", kv_cache_bytes=GIB).kv_cache == GIB
    assert need("vllm", kv_cache_bytes=GIB // 4).kv_least == GIB // 4  # what is stated is never called too little


@pytest.mark.parametrize("args", [("--quantization", "fp8"), ("--quantization=fp8",), ("--x", "--quantization", "fp8")])
def test_weights_that_vllm_quantises_take_about_half(args: tuple[str, ...]) -> None:
    assert need("vllm", args=args).weights == round(0.55 * WEIGHTS)
    assert need("vllm", quantize="fp8").weights == round(0.55 * WEIGHTS)


def test_max_on_a_gpu_measures_what_is_free_and_starts_alone() -> None:
    found = need("max")
    assert (found.weights, found.exclusive_start, found.gpus) == (WEIGHTS, True, (1, 2, 4, 8))
    assert found.overhead > 3 * GIB


@pytest.mark.parametrize("engine", ["vllm", "max"])
def test_on_a_cpu_they_compute_in_float32(engine: str) -> None:
    found = need(engine, device="cpu", parallel=8, context=2048)
    assert (found.weights, found.gpus, found.kv_least) == (2 * WEIGHTS, (1,), None)
    assert found.overhead > 10**9


def test_vllm_on_a_cpu_is_thought_to_take_the_cache_it_is_started_with() -> None:
    stated = settings(engine="vllm", context=4096, parallel=8)
    launch = base.load("vllm").launch(samples.DIRECTORY, stated, samples.home("vllm"), samples.place(Host(cpus=(0, 1))))
    given = int(launch.argv[launch.argv.index("--kv-cache-memory-bytes") + 1])
    assert base.load("vllm").need(samples.DIRECTORY, stated, samples.home("vllm"), MEMORY).kv_cache == given
