"""The command line and environment of every engine, against files: `GOLDEN=write pytest tests/engines/test_launch.py`
writes them anew, and the difference is then to be read."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path

import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.models import Capability, Kind, Model, Placement, Settings, Share
from hyperllamad.engines import base
from hyperllamad.engines.base import Home, Host, Launch, Place
from tests.engines import samples

GOLDEN = Path(__file__).with_name("golden")
OLD_CPU = samples.place(Host(cpus=tuple(range(16))))
ALLOWED = samples.place(Host(cpus=(0, 1), telemetry=True, hub_access=True))
EXTRA = {"args": ("--last", "word"), "env": (("TMPDIR", "/elsewhere"),)}


GIB = 1 << 30
ROOM = Placement((Share("GPU-1", 1, 80 * GIB, 33 * GIB, 16 * GIB),))
TWO = Placement(tuple(Share(f"GPU-{n}", n, 80 * GIB, 40 * GIB, (20 + n) * GIB) for n in (0, 3)))


def in_room(engine: str, room: Placement, **changes: object) -> tuple[Model, Settings, Home, Place]:
    place = dataclasses.replace(samples.place(), room=room)
    settings = samples.settings(engine, "cuda", **changes)
    return samples.DIRECTORY, settings, samples.home(engine, "cuda", version="26.0"), place


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
    "vllm-cuda-quantize": in_room("vllm", ROOM, quantize="fp8"),
    "vllm-cuda-room": in_room("vllm", ROOM),
    "vllm-cuda-two": in_room("vllm", TWO, env=(("CUDA_VISIBLE_DEVICES", "7"),)),
    "max-cuda-room": in_room("max", ROOM),
    "max-cuda-two": in_room("max", TWO),
    "llama_cpp-adapters": (
        dataclasses.replace(samples.GGUF, adapters=("/models/.adapters/a.gguf", "/srv/b.gguf")),
        samples.settings("llama_cpp"),
        samples.home("llama_cpp"),
        samples.place(),
    ),
    **{
        f"{engine}-ranking": (
            dataclasses.replace(samples.encoder_for(engine), info={"bert.pooling_type": 4}),
            samples.settings(engine),
            samples.home(engine),
            samples.place(),
        )
        for engine in ("llama_cpp", "vllm")
    },
    **{
        f"{engine}-embedding": (
            samples.encoder_for(engine),
            samples.settings(engine),
            samples.home(engine),
            samples.place(),
        )
        for engine in base.NAMES
    },
    **{
        f"{engine}-tools": (
            samples.caller_for(engine),
            samples.settings(engine),
            samples.home(engine),
            samples.place(),
        )
        for engine in base.NAMES
    },
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


def graph_sizes(parallel: int, *args: str) -> list[int]:
    settings = samples.settings("vllm", "cuda", parallel=parallel, args=args)
    argv = base.load("vllm").launch(samples.DIRECTORY, settings, samples.home("vllm", "cuda"), samples.place()).argv
    if "--cudagraph-capture-sizes" not in argv:
        return []
    behind = argv[argv.index("--cudagraph-capture-sizes") + 1 :]
    return [int(word) for word in itertools.takewhile(str.isdigit, behind)]


@pytest.mark.parametrize("parallel", [1, 2, 3, 8, 13, 64, 100, 256, 1024])
def test_vllm_captures_graphs_for_as_many_requests_as_there_may_be_at_once(parallel: int) -> None:
    sizes = graph_sizes(parallel)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == min(parallel, 256)
    assert len(sizes) <= 23
    # Whatever number of requests is in a step, at most as much again is computed for nothing, and 15 at most.
    assert all(above - below <= min(16, max(2, below + 1)) for below, above in itertools.pairwise(sizes))


@pytest.mark.parametrize("args", [
    ("--enforce-eager",), ("--max-cudagraph-capture-size", "8"), ("--cudagraph_capture_sizes", "1"),
    ("--compilation-config", '{"cudagraph_capture_sizes": [1]}'), ("--speculative-config", "{}"),
])  # fmt: skip
def test_whoever_states_graphs_is_not_contradicted(args: tuple[str, ...]) -> None:
    assert set(graph_sizes(64, *args)) <= {1}


def test_other_words_about_compiling_stand_beside_ours() -> None:
    assert graph_sizes(4, "--compilation-config", '{"mode":0,"cudagraph_mode":"FULL"}') == [1, 2, 4]


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


@pytest.mark.parametrize("engine", ["vllm", "max"])
def test_no_engine_runs_less_than_clients_are_told(engine: str) -> None:
    model = dataclasses.replace(samples.DIRECTORY, context_length=512)
    settings = samples.settings(engine, context=9000)
    launch = base.load(engine).launch(model, settings, samples.home(engine), samples.place())
    assert "512" in launch.argv
    assert base.load(engine).body(Kind.CHAT, {"max_tokens": 9000}, model, settings)["max_tokens"] == 512


@pytest.mark.parametrize(("able", "flags"), [
    ({Capability.TOOLS}, ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]),
    ({Capability.THINKING}, ["--reasoning-parser", "qwen3"]),
    (set(), []),
])  # fmt: skip
def test_parsers_are_named_for_what_the_model_can_do(able: set[Capability], flags: list[str]) -> None:
    model = dataclasses.replace(samples.caller_for("vllm"), capabilities=frozenset(able | {Capability.COMPLETION}))
    launch = base.load("vllm").launch(model, samples.settings("vllm"), samples.home("vllm"), samples.place())
    told = [word for word in launch.argv if "parser" in word or "tool" in word or word in {"hermes", "qwen3"}]
    assert told == flags


def test_a_parser_of_the_user_s_is_not_named_twice() -> None:
    settings = samples.settings("vllm", args=("--tool-call-parser=mistral", "--reasoning-parser", "mistral"))
    launch = base.load("vllm").launch(samples.caller_for("vllm"), settings, samples.home("vllm"), samples.place())
    assert [word for word in launch.argv if "parser" in word] == ["--tool-call-parser=mistral", "--reasoning-parser"]


@pytest.mark.parametrize(("engine", "room"), [("vllm", 70), ("max", 64)])
def test_a_long_runtime_directory_is_named_before_the_engine_is_started(engine: str, room: int) -> None:
    def launch(tmp: str, **changes: object) -> Launch:
        place = dataclasses.replace(samples.place(), tmp=tmp)
        settings = samples.settings(engine, **changes)
        return base.load(engine).launch(samples.DIRECTORY, settings, samples.home(engine), place)

    longest = "/" + "é" * ((room - 1) // 2) + "x" * ((room - 1) % 2)
    assert len(longest.encode()) == room
    assert launch(longest).env["TMPDIR"] == longest
    with pytest.raises(LoadFailedError, match=r"by 1 bytes: .*paths.runtime"):
        launch(longest + "x")
    assert launch(longest + "x", env=(("TMPDIR", "/t"),)).env["TMPDIR"] == "/t"  # where the user says so, that counts


@pytest.mark.parametrize(("version", "arguments", "levels"), [
    ("0.33.0", (), (1,)), ("0.17.0", (), (1,)), ("0.13.0.post1", (), (1,)), ("0.9", (), (1,)),
    ("0.8.5", (), ()), ("0.14.0", (), ()), ("0.16.1rc2", (), ()),
    ("0.33.0", ("--kv-cache-dtype", "fp8_e4m3"), ()), ("0.33.0", ("--kv_cache_dtype=fp8",), ()),
    ("0.33.0", ("--kv-cache-dtype", "auto"), (1,)), ("0.33.0", ("--kv-cache-dtype",), (1,)),
])  # fmt: skip
def test_vllm_sleeps_where_it_can_be_relied_on(version: str, arguments: tuple[str, ...], levels: tuple[int]) -> None:
    engine, home = base.load("vllm"), samples.home("vllm", "cuda", version=version)
    settings = samples.settings("vllm", "cuda", args=arguments)
    assert engine.sleep_levels(samples.DIRECTORY, settings, home) == levels
    launch = engine.launch(samples.DIRECTORY, settings, home, samples.place())
    assert ("--enable-sleep-mode" in launch.argv) is bool(levels)
    assert ("VLLM_SERVER_DEV_MODE" in launch.env) is bool(levels)


@pytest.mark.parametrize("case", CASES)
def test_nothing_sleeps_on_a_cpu_or_gives_embeddings(case: str) -> None:
    model, settings, home, _ = CASES[case]
    levels = base.load(settings.engine).sleep_levels(model, settings, home)
    assert levels == ((1,) if settings.engine == "vllm" and settings.device == "cuda" else ())


def test_routes_for_developers_are_there_only_behind_the_private_socket() -> None:
    for model, settings, home, place in CASES.values():
        launch = base.load(settings.engine).launch(model, settings, home, place)
        if "VLLM_SERVER_DEV_MODE" in launch.env:
            assert launch.argv[launch.argv.index("--uds") + 1] == place.socket


def test_a_prepared_vllm_differs_from_a_started_one_in_late_variables_only() -> None:
    for case, (model, settings, home, place) in CASES.items():
        launch = base.load(settings.engine).launch(model, settings, home, place)
        preparation = base.load(settings.engine).prepare(home, place, dict(settings.env))
        assert (preparation is not None) is (settings.engine == "vllm"), case
        if preparation is not None:
            before, after = preparation.launch.env, launch.env
            assert {name for name in before | after if before.get(name) != after.get(name)} <= preparation.late
            assert preparation.launch.argv[:2] == launch.argv[:2]
