"""The catalogue: names from three places, broken ones beside good ones, and what a second look costs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import ModelsTable, ModelTable
from hyperllamad.core.errors import InvalidNameError, LoadFailedError, ModelNotFoundError
from hyperllamad.core.models import Format, Limits
from hyperllamad.store import catalog, survey
from hyperllamad.store.catalog import Catalog
from tests.store.files import sharded_directory, small_directory, small_gguf


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "models"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Catalog]:
    def make(*entries: ModelTable, **models: Any) -> Catalog:
        state = tmp_path / "state"
        paths = Paths(config=state, state=state, cache=state, runtime=state)
        return Catalog(paths, ModelsTable(**models), entries)

    return make


Make = Callable[..., Catalog]


def gguf(path: Path, **metadata: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_gguf(**metadata))
    return path


def age(root: Path) -> None:
    """Make everything an hour old, so that nothing counts as just changed."""
    for path in (root, *root.rglob("*")):
        then = path.stat().st_mtime - 3600
        os.utime(path, (then, then))


def names(catalog: Catalog) -> list[str]:
    return [model.name.short for model in catalog.list()]


def test_all_three_places(store: Path, tmp_path: Path, make: Make) -> None:
    gguf(store / "tiny@q4" / "x.gguf")
    gguf(tmp_path / "elsewhere" / "other.gguf")
    small_directory(tmp_path / "anywhere" / "directory")
    entry = ModelTable(name="mine", path=str(tmp_path / "anywhere" / "directory"))
    found = make(entry, directories=(str(tmp_path / "elsewhere"),))
    assert sorted(names(found)) == ["mine:latest", "other:latest", "tiny:q4"]
    assert found.resolve("mine").format is Format.SAFETENSORS
    assert found.problems() == ()


def test_an_empty_machine(make: Make, tmp_path: Path) -> None:
    found = make(directories=(str(tmp_path / "gone"),))
    assert (found.list(), found.problems()) == ((), ())
    with pytest.raises(ModelNotFoundError):
        found.resolve("tiny")


def test_names_as_clients_write_them(store: Path, make: Make) -> None:
    gguf(store / "Tiny.gguf")
    gguf(store / "hf.co" / "org" / "repo@Q4" / "x.gguf")
    found = make()
    for text in ("tiny", "TINY", "tiny:LATEST", "library/tiny", "registry.ollama.ai/library/tiny:latest", " tiny "):
        assert found.resolve(text).name.short == "Tiny:latest"
    assert found.resolve("HF.co/Org/repo:q4").name.short == "hf.co/org/repo:Q4"
    with pytest.raises(ModelNotFoundError) as missing:
        found.resolve("Tiny:q8")
    assert missing.value.name == "Tiny:q8"
    with pytest.raises(InvalidNameError) as invalid:
        found.resolve("bad name")
    assert invalid.value.name == "bad name"


def test_the_newest_comes_first(store: Path, make: Make) -> None:
    for number, name in enumerate(("b", "c", "a")):
        os.utime(gguf(store / f"{name}.gguf"), (number, number))
    assert names(make()) == ["a:latest", "c:latest", "b:latest"]


def test_what_models_d_adds(store: Path, make: Make) -> None:
    gguf(store / "tiny.gguf")
    entry = ModelTable(
        name="TINY",
        engine="vllm",
        context=99,
        parallel=3,
        args=("--x",),
        system="Be kind.",
        parameters={"top_k": 1},
        quantize="fp8",
    )
    (model,) = make(entry, context=5, parallel=6).list()
    assert model.name.short == "TINY:latest"
    assert (model.engine, model.context, model.parallel, model.engine_args) == ("vllm", 99, 3, ("--x",))
    assert (model.system, model.parameters, model.quantize) == ("Be kind.", {"top_k": 1}, "fp8")
    (model,) = make(ModelTable(name="tiny", memory_max="2GiB", tasks_max=64)).list()
    assert model.limits == Limits(memory=2 << 30, tasks=64)
    (model,) = make(context=5, parallel=6).list()
    assert (model.engine, model.context, model.parallel, model.engine_args) == ("", 5, 6, ())


def test_stated_parameters_win_over_recommended_ones(store: Path, make: Make) -> None:
    small_directory(store / "m", generation_config={"temperature": 0.6, "top_k": 20})
    (model,) = make(ModelTable(name="m", parameters={"top_k": 1})).list()
    assert model.parameters == {"temperature": 0.6, "top_k": 1}


def test_one_model_under_two_names(store: Path, make: Make) -> None:
    path = gguf(store / "tiny" / "x.gguf")
    found = make(ModelTable(name="twin", path=str(path)), ModelTable(name="below", path="tiny/x.gguf"))
    assert len({found.resolve(name).digest for name in ("tiny", "twin", "below")}) == 1


def test_who_wins(store: Path, tmp_path: Path, make: Make) -> None:
    gguf(store / "m.gguf", llama__context_length=1)
    gguf(tmp_path / "one" / "M.gguf", llama__context_length=2)
    gguf(tmp_path / "two" / "x.gguf", llama__context_length=3)
    gguf(tmp_path / "three" / "x.gguf", llama__context_length=4)
    directories = tuple(str(tmp_path / name) for name in ("one", "two", "three"))
    found = make(directories=directories)
    assert (found.resolve("m").context_length, found.resolve("x").context_length) == (1, 3)
    assert [problem.path for problem in found.problems()] == [
        str(tmp_path / "one" / "M.gguf"),
        str(tmp_path / "three" / "x.gguf"),
    ]
    stated = make(ModelTable(name="m", path=str(tmp_path / "three/x.gguf")), directories=directories)
    assert stated.resolve("m").context_length == 4


def test_broken_models_hide_nothing(store: Path, make: Make) -> None:
    gguf(store / "good.gguf")
    (store / "cut.gguf").write_bytes(small_gguf()[:-9])
    (store / "noise.gguf").write_bytes(b"noise" * 99)
    (sharded_directory(store / "shards") / "model-00002-of-00003.safetensors").unlink()
    found = make(
        ModelTable(name="gone", path=str(store / "gone.gguf")),
        ModelTable(name="bad name", path=str(store / "good.gguf")),
        ModelTable(name="nowhere"),
        ModelTable(name="again", path=str(store / "good.gguf")),
        ModelTable(name="AGAIN", path=str(store / "gone.gguf")),
    )
    assert names(found) == ["again:latest", "good:latest"]
    says = {
        "cut:latest": "is truncated",
        "noise:latest": "is not a GGUF file",
        "shards:latest": "lacks 1 of 3 weight files: model-00002-of-00003.safetensors",
        "gone:latest": "gone.gguf does not exist",
        "nowhere:latest": "without a path",
    }
    problems = {problem.name: problem.sentence for problem in found.problems()}
    for name, sentence in says.items():
        assert sentence in problems.pop(name)
        with pytest.raises(LoadFailedError) as caught:
            found.resolve(name)
        assert sentence in caught.value.message
    assert problems == {
        "bad name": "models.d: invalid model name (a name looks like llama3.2:3b or hf.co/org/repo:tag)",
        "AGAIN:latest": "models.d names this model twice: the first file counts",
    }


def test_an_error_is_fresh_each_time(store: Path, make: Make) -> None:
    (store / "noise.gguf").write_bytes(b"noise")
    found = make()
    caught = []
    for _ in range(2):
        with pytest.raises(LoadFailedError) as failure:
            found.resolve("noise")
        caught.append(failure.value)
    assert caught[0] is not caught[1]
    assert caught[0].hint == caught[1].hint != ""


def test_changes_are_seen(store: Path, make: Make) -> None:
    found = make()
    assert names(found) == []
    path = gguf(store / "a" / "x.gguf")
    assert found.resolve("a").context_length == 512
    path.write_bytes(small_gguf(llama__context_length=77))
    assert found.resolve("a").context_length == 77
    path.write_bytes(b"half")
    with pytest.raises(LoadFailedError):
        found.resolve("a")
    assert names(found) == []
    path.write_bytes(small_gguf())
    assert names(found) == ["a:latest"]
    (store / "a").rename(store / "b")
    assert names(found) == ["b:latest"]
    with pytest.raises(ModelNotFoundError):
        found.resolve("a")
    shutil.rmtree(store)
    assert names(found) == []


def test_what_arrives_later_is_seen_in_an_old_store(store: Path, make: Make) -> None:
    """The same with directories that have been still for long, where only their times tell."""
    (store / "ns" / "empty").mkdir(parents=True)
    gguf(store / "ns" / "m@1" / "x.gguf")
    directory = sharded_directory(store / "shards")
    shard = directory / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.unlink()
    split = gguf(store / "split-00001-of-00002.gguf")
    entry = ModelTable(name="split", path=str(split))
    found = make(entry)
    age(store)
    assert names(found) == ["ns/m:1"]
    shard.write_bytes(content)
    assert found.resolve("shards").size > 0
    gguf(store / "split-00002-of-00002.gguf")
    assert found.resolve("split").size > split.stat().st_size
    gguf(store / "ns" / "empty" / "x.gguf")
    assert found.resolve("ns/empty").name.short == "ns/empty:latest"
    assert len(found.list()) == 4


def test_a_model_that_becomes_part_of_a_name(store: Path, make: Make) -> None:
    gguf(store / "org" / "x.gguf")
    gguf(store / "other" / "x.gguf")
    age(store)
    first, second = make(), make()
    assert sorted(names(first)) == sorted(names(second)) == ["org:latest", "other:latest"]
    (store / "org" / "x.gguf").unlink()
    gguf(store / "org" / "new" / "x.gguf")
    assert first.resolve("org/new").name.short == "org/new:latest"
    assert names(second) == ["org/new:latest", "other:latest"]


def test_a_name_that_leads_elsewhere_now(store: Path, tmp_path: Path, make: Make) -> None:
    gguf(tmp_path / "other" / "m.gguf", llama__context_length=1)
    found = make(directories=(str(tmp_path / "other"),))
    age(tmp_path)
    assert found.resolve("m").context_length == 1
    gguf(store / "m.gguf", llama__context_length=2)
    assert found.resolve("m").context_length == 2


def test_nothing_is_read_again_while_nothing_changes(store: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf(store / "a" / "x.gguf")
    sharded_directory(store / "b")
    (store / "noise.gguf").write_bytes(b"noise")
    found = make(ModelTable(name="gone", path="gone.gguf"))
    age(store)
    before = found.list()
    problems = found.problems()

    def never(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(catalog, "inspect", never)
    monkeypatch.setattr(catalog, "survey", never)
    assert all(new is old for new, old in zip(found.list(), before, strict=True))
    assert found.problems() == problems
    assert found.resolve("a") is found.resolve("A:latest")
    with pytest.raises(LoadFailedError, match="noise"):
        found.resolve("noise")
    with pytest.raises(LoadFailedError, match="gone"):
        found.resolve("gone")
    with pytest.raises(ModelNotFoundError):
        found.resolve("other")


def test_files_from_the_future_are_not_read_at_every_call(
    store: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = gguf(store / "a.gguf")
    os.utime(path, (4e9, 4e9))
    os.utime(store, (4e9, 4e9))
    found = make()
    model = found.resolve("a")
    monkeypatch.setattr(catalog, "inspect", None)
    monkeypatch.setattr(catalog, "survey", None)
    assert found.resolve("a") is model


def test_resolve_asks_a_few_files_only(store: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        gguf(store / f"m{number}" / "x.gguf")
    found = make()
    age(store)
    found.list()
    asked: list[str] = []
    stat = os.stat
    monkeypatch.setattr(survey.os, "stat", lambda path: (asked.append(str(path)), stat(path))[1])
    found.resolve("m7")
    monkeypatch.undo()
    variant = store.parent / "variants" / "m7@latest.toml"
    assert asked == [str(variant), str(store), str(store / "m7"), str(store / "m7" / "x.gguf")]


def test_a_change_within_one_tick_of_the_clock_is_seen(store: Path, make: Make) -> None:
    """Same size, same inode, same time: only that the file was young when it was read says to look again."""
    path = gguf(store / "a.gguf", llama__context_length=100)
    found = make()
    assert found.resolve("a").context_length == 100
    status = path.stat()
    with path.open("r+b") as file:
        file.write(small_gguf(llama__context_length=200))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert found.resolve("a").context_length == 200
