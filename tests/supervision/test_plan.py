"""How settings come about, and how many models at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyperllamad.config.tables import Config, EngineTable
from hyperllamad.core.errors import NoEngineError
from hyperllamad.core.gpu_health import Verdict
from hyperllamad.core.models import Limits, key_of
from hyperllamad.engines.base import Home
from hyperllamad.supervision import plan
from tests.supervision import fake

VLLM = Home("vllm-1-cuda", "vllm", "1", "cuda", "/nowhere", "/nowhere/bin/python")


@pytest.fixture
def config(runtime: Path) -> Config:
    return fake.configuration(runtime)


def with_models(config: Config, **values: Any) -> Config:
    return msgspec.structs.replace(config, models=msgspec.structs.replace(config.models, **values))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0, 0, 0), 4096),
        ((0, 0, 131072), 4096),
        ((0, 0, 2048), 2048),
        ((0, 16384, 131072), 16384),
        ((0, 16384, 8192), 8192),  # a general wish must not break a small model
        ((0, 16384, 0), 16384),
        ((65536, 16384, 8192), 8192),  # engines refuse more, and `ps` must show what runs
        ((512, 16384, 8192), 512),
    ],
)
def test_context(config: Config, runtime: Path, given: tuple[int, int, int], expected: int) -> None:
    stated, general, trained = given
    model = fake.model(runtime, "m", context=stated, context_length=trained)
    assert plan.resolve(model, with_models(config, context=general), fake.HOME).context == expected


@pytest.mark.parametrize(("stated", "given", "expected"), [(0, 8192, 8192), (512, 8192, 512), (0, 0, 4096)])
def test_a_variants_own_num_ctx_is_its_context(
    config: Config, runtime: Path, stated: int, given: int, expected: int
) -> None:
    model = fake.model(runtime, "m", context=stated, parameters={"num_ctx": given})
    assert plan.resolve(model, config, fake.HOME).context == expected


@pytest.mark.parametrize(
    ("home", "given", "expected"),
    [
        (fake.HOME, (0, 0), 4),
        (VLLM, (0, 0), 256),
        (replace(VLLM, variant="cpu"), (0, 0), 8),
        (fake.HOME, (0, 2), 2),
        (VLLM, (3, 2), 3),
    ],
)
def test_parallel(config: Config, runtime: Path, home: Home, given: tuple[int, int], expected: int) -> None:
    stated, general = given
    model = fake.model(runtime, "m", parallel=stated)
    assert plan.resolve(model, with_models(config, parallel=general), home).parallel == expected


def test_the_engines_table_and_the_models_own_arguments(config: Config, runtime: Path) -> None:
    table = EngineTable(args=("--table",), env={"B": "2", "A": "1"}, memory="1GiB")
    config = msgspec.structs.replace(config, engine={"llama_cpp": table})
    settings = plan.resolve(fake.model(runtime, "m", "--own"), config, fake.HOME)
    assert settings.args == ("--table", "--own")  # the model's last, so that they win
    assert settings.env == (("A", "1"), ("B", "2"))
    assert settings.kv_cache_bytes == 1 << 30
    assert (settings.engine, settings.home, settings.device) == ("llama_cpp", fake.HOME.id, "cpu")


def test_a_models_own_limits_win_over_its_engines(config: Config, runtime: Path) -> None:
    table = EngineTable(memory_max="8GiB", cpu_weight=50)
    config = msgspec.structs.replace(config, engine={"llama_cpp": table})
    model = fake.model(runtime, "m", limits=Limits(memory=1 << 30, tasks=64))
    assert plan.resolve(model, config, fake.HOME).limits == Limits(1 << 30, 64, 50)


def test_one_set_of_weights_quantised_and_not_are_two_instances(config: Config, runtime: Path) -> None:
    model = fake.model(runtime, "m")
    quantised = replace(model, quantize="fp8")
    whole, half = (plan.resolve(each, config, VLLM) for each in (model, quantised))
    assert (whole.quantize, half.quantize) == ("", "fp8")
    assert key_of(model, whole) != key_of(quantised, half)


def test_a_plan_names_its_instance(config: Config, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)
    model = fake.model(runtime, "m")
    found = plan.Planner(config, fake.FakeHomes(runtime)).plan(model)
    assert found.key == key_of(model, found.settings)
    assert (found.model, found.home, found.engine) == (model, fake.HOME, fake.ENGINE)


def test_a_plan_is_made_again_when_what_it_is_made_of_is_another(
    config: Config, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.install(monkeypatch)
    model, verdict = fake.model(runtime, "m"), [Verdict("cpu")]
    homes = fake.FakeHomes(runtime)
    planner = plan.Planner(config, homes, lambda: verdict[0])
    found = planner.plan(model)
    assert planner.plan(model) is found
    assert planner.plan(replace(model, parallel=7)).settings.parallel == 7
    assert planner.plan(model).settings.parallel == found.settings.parallel
    planner.grow(model, 16384)
    assert planner.plan(model).settings.context == 16384
    planner.grow(model, 0)
    planner.configure(with_models(config, parallel=9))
    assert planner.plan(model).settings.parallel == 9
    verdict[0] = Verdict("cpu", "it has fallen off the bus")
    assert planner.plan(model).home == fake.HOME, "it runs on the processor as it did"
    homes.homes = (replace(fake.HOME, id="another"),)
    assert planner.plan(model).settings.home == "another"


def test_no_more_plans_are_kept_than_it_says(config: Config, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)
    monkeypatch.setattr(plan, "MOST_PLANS", 3)
    planner = plan.Planner(config, fake.FakeHomes(runtime))
    for number in range(10):
        planner.plan(fake.model(runtime, f"m{number}"))
        assert len(planner._planned) <= 3


def test_no_home_is_an_error_with_advice(config: Config, runtime: Path) -> None:
    with pytest.raises(NoEngineError, match="engine install"):
        plan.Planner(config, fake.FakeHomes(runtime, ())).plan(fake.model(runtime, "m"))


@pytest.mark.parametrize(("given", "expected"), [((0, 0), 3), ((1, 0), 3), ((2, 0), 6), ((2, 1), 1)])
def test_models_at_once(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[int, int], expected: int
) -> None:
    gpus, stated = given
    monkeypatch.setattr(plan, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for number in range(gpus):
        (tmp_path / f"nvidia{number}").touch()
    (tmp_path / "nvidiactl").touch()
    assert plan.models_at_once(fake.configuration(runtime, max_loaded_models=stated)) == expected


@pytest.mark.parametrize(
    ("asked", "trained", "planned"),
    [
        (0, 131072, 4096),
        (1, 131072, 4096),
        (4097, 131072, 8192),
        (8192, 131072, 8192),
        (8193, 131072, 16384),
        (60000, 131072, 65536),
        (60000, 0, 65536),
        (60000, 40960, 40960),
    ],
)
def test_requests_for_longer_contexts_lead_to_few_lengths(
    config: Config, runtime: Path, asked: int, trained: int, planned: int
) -> None:
    planner = plan.Planner(config, fake.FakeHomes(runtime))
    model = fake.model(runtime, "m", context_length=trained)
    planner.grow(model, asked)
    assert planner.plan(model).settings.context == planned
