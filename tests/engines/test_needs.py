"""Estimates of memory from what a model's files say."""

from __future__ import annotations

from typing import Any

import pytest

from hyperllamad.core.models import Format, Model, Need, Settings
from hyperllamad.core.names import ModelName
from hyperllamad.engines import needs

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


def test_on_a_gpu_many_sequences_share_a_paged_cache() -> None:
    assert needs.estimate(model(), settings(device="cuda", parallel=256)).kv_cache == 8 * GIB


def test_a_stated_kv_cache_is_what_is_needed() -> None:
    assert needs.estimate(model(), settings(kv_cache_bytes=3)).kv_cache == 3


def test_the_overhead_comes_again_on_every_device() -> None:
    assert Need(weights=10, kv_cache=5, overhead=2).share(2) == 10
    assert Need(weights=10, kv_cache=5, overhead=2).share(1) == 17
