"""The command line and environment of every engine, against files: `GOLDEN=write pytest tests/engines/test_launch.py`
writes them anew, and the difference is then to be read."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from hyperllamad.core.models import Capability, Model, Settings
from hyperllamad.engines import base
from hyperllamad.engines.base import Home, Host, Launch, Place
from tests.engines import samples

GOLDEN = Path(__file__).with_name("golden")
OLD_CPU = samples.place(Host(cpus=tuple(range(16))))
ALLOWED = samples.place(Host(cpus=(0, 1), telemetry=True, hub_access=True))
EMBEDDING = frozenset({Capability.EMBEDDING})
EXTRA = {"args": ("--last", "word"), "env": (("TMPDIR", "/elsewhere"),)}


def embedding(engine: str) -> Model:
    return dataclasses.replace(samples.model_for(engine), capabilities=EMBEDDING)


CASES: dict[str, tuple[Model, Settings, Home, Place]] = {
    f"{engine}-{variant}": (
        samples.model_for(engine),
        samples.settings(engine, "cuda" if variant == "cuda" else "cpu"),
        samples.home(engine, variant),
        samples.place(),
    )
    for engine in base.NAMES
    for variant in (*base.load(engine).variants, *(("system",) if engine == "llama_cpp" else ()))
} | {
    "vllm-cpu-without-bfloat16": (samples.DIRECTORY, samples.settings("vllm"), samples.home("vllm"), OLD_CPU),
    "vllm-cuda-memory": (
        samples.DIRECTORY,
        samples.settings("vllm", "cuda", kv_cache_bytes=1 << 30),
        samples.home("vllm", "cuda"),
        samples.place(),
    ),
    "vllm-embedding": (embedding("vllm"), samples.settings("vllm"), samples.home("vllm"), samples.place()),
    "llama_cpp-embedding": (
        embedding("llama_cpp"),
        samples.settings("llama_cpp"),
        samples.home("llama_cpp"),
        samples.place(),
    ),
    **{
        f"{engine}-allowed": (
            samples.model_for(engine),
            samples.settings(engine, **EXTRA),
            samples.home(engine, variant),
            ALLOWED,
        )
        for engine, variant in (("llama_cpp", "system"), ("vllm", "cpu"), ("max", "cpu"))
    },
}


def show(launch: Launch) -> str:
    """One line per option with its value, then the environment."""
    lines: list[str] = []
    for word in launch.argv:
        text = word.replace(str(Path(base.__file__).parent), "{engines}")
        if lines and not text.startswith("--") and lines[-1].startswith("--"):
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    env = [f"{name}={value}" for name, value in sorted(launch.env.items())]
    return "\n".join([*lines, "", *env, "", f"in {launch.cwd}", ""])


@pytest.mark.parametrize("case", CASES)
def test_launch_is_as_recorded(case: str) -> None:
    model, settings, home, place = CASES[case]
    shown = show(base.load(settings.engine).launch(model, settings, home, place))
    path = GOLDEN / f"{case}.txt"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(shown)
    assert shown == path.read_text()


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_opened_to_the_network(case: str) -> None:
    model, settings, home, place = CASES[case]
    launch = base.load(settings.engine).launch(model, settings, home, place)
    assert place.socket in launch.argv
    assert not {"0.0.0.0", "::", "--port"} & set(launch.argv)


@pytest.mark.parametrize(("wanted", "trained", "compiled"), [
    (1, 8192, 2048), (2048, 8192, 2048), (2049, 8192, 4096), (4096, 0, 4096), (5000, 6000, 6000), (70000, 0, 131072),
])  # fmt: skip
def test_max_compiles_few_lengths(wanted: int, trained: int, compiled: int) -> None:
    model = dataclasses.replace(samples.DIRECTORY, context_length=trained)
    launch = base.load("max").launch(
        model, samples.settings("max", context=wanted), samples.home("max"), samples.place()
    )
    assert launch.argv[launch.argv.index("--max-length") + 1] == str(compiled)


def kv_bytes(model: Model, **settings: object) -> int:
    launch = base.load("vllm").launch(
        model, samples.settings("vllm", **settings), samples.home("vllm"), samples.place()
    )
    return int(launch.argv[launch.argv.index("--kv-cache-memory-bytes") + 1])


def test_vllm_takes_memory_for_what_it_shall_hold() -> None:
    a_token = 2 * 30 * 3 * 64 * 2  # keys and values, layers, heads, width, bytes of bfloat16
    assert kv_bytes(samples.DIRECTORY, context=8192, parallel=4) == a_token * 8192 * 4
    assert kv_bytes(samples.DIRECTORY, context=1024, parallel=1) == 256 << 20
    assert kv_bytes(samples.DIRECTORY, context=8192, parallel=256) == 4 << 30
    assert kv_bytes(samples.DIRECTORY, kv_cache_bytes=12345) == 12345
    assert kv_bytes(dataclasses.replace(samples.DIRECTORY, info={})) == 1 << 30


def test_vllm_takes_memory_for_one_whole_context_however_long() -> None:
    model = dataclasses.replace(samples.DIRECTORY, context_length=1 << 20)
    one = 2 * 30 * 3 * 64 * 2 * (1 << 20)
    assert kv_bytes(model, context=1 << 20, parallel=8) >= one > 4 << 30


def test_a_context_beyond_what_the_model_was_trained_for_is_cut() -> None:
    launch = base.load("vllm").launch(
        samples.DIRECTORY, samples.settings("vllm", context=100_000), samples.home("vllm"), samples.place()
    )
    assert launch.argv[launch.argv.index("--max-model-len") + 1] == "8192"


def test_only_the_engines_of_the_list_are_loaded() -> None:
    assert [base.load(name).name for name in base.NAMES] == list(base.NAMES)
    with pytest.raises(KeyError):
        base.load("ollama")
