"""Copies, variants, deletes: what is inherited, what is removed and what never is, and a power cut at every change."""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import ModelsTable, ModelTable
from hyperllamad.core.errors import (
    BadRequestError,
    HyperLlamaError,
    InUseError,
    InvalidNameError,
    LoadFailedError,
    ModelNotFoundError,
    StoreError,
    UnsupportedError,
)
from hyperllamad.core.models import Message, Settings, key_of
from hyperllamad.core.names import ModelName
from hyperllamad.store import disk, garbage
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.overlays import MAX_FILE, Overlay, Overlays
from hyperllamad.store.steps import Step
from hyperllamad.store.variants import Variants, Wanted
from tests.store.files import small_directory, small_gguf
from tests.store.lora import lora_gguf
from tests.store.power import Power, PowerCutError


def catalog_of(root: Path, *entries: ModelTable, **models: Any) -> Catalog:
    paths = Paths(config=root, state=root / "state", cache=root, runtime=root)
    return Catalog(paths, ModelsTable(**models), entries)


def gguf(path: Path, **metadata: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_gguf(**metadata))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "models"
    gguf(path / "tiny@q4" / "x.gguf")
    return path


@pytest.fixture
def catalog(tmp_path: Path, store: Path) -> Catalog:
    return catalog_of(tmp_path)


@pytest.fixture
def variants(catalog: Catalog) -> Variants:
    return Variants(catalog)


def names(catalog: Catalog) -> list[str]:
    return sorted(model.name.short for model in catalog.list())


def test_a_copy_is_the_same_model_under_another_name(catalog: Catalog, variants: Variants) -> None:
    variants.copy("TINY:q4", "Mine")
    original, copy = catalog.resolve("tiny:q4"), catalog.resolve("mINE:latest")
    assert (copy.name.short, copy.digest, copy.path) == ("Mine:latest", original.digest, original.path)
    assert copy.modified_at != original.modified_at
    assert catalog.list()[0] == copy
    settings = Settings(engine="llama_cpp", home="h", device="cpu", context=1, parallel=1)
    assert key_of(copy, settings) == key_of(original, settings)


def test_an_old_variant_is_not_made_anew(catalog: Catalog, variants: Variants, tmp_path: Path) -> None:
    variants.copy("tiny:q4", "mine")
    for path in (tmp_path / "state", *(tmp_path / "state").rglob("*")):
        os.utime(path, (1e9, 1e9))
    assert catalog.resolve("mine") is catalog.resolve("mine") is catalog.list()[0]


def test_copies_in_ollamas_words(catalog: Catalog, variants: Variants) -> None:
    with pytest.raises(BadRequestError, match=r'^source "bad name" is invalid$'):
        variants.copy("bad name", "also bad")
    with pytest.raises(BadRequestError, match=r'^destination "bad name" is invalid$'):
        variants.copy("nope", "bad name")
    with pytest.raises(ModelNotFoundError) as missing:
        variants.copy("nope", "m")
    assert missing.value.name == "nope"
    variants.copy("tiny:q4", "TINY:Q4")
    assert names(catalog) == ["tiny:q4"]
    assert catalog.overlays.all() == {}


def test_create_adds_and_inherits(catalog: Catalog, variants: Variants) -> None:
    first = Wanted(
        name="one",
        base="tiny:q4",
        system="Be kind.",
        template="{{ .Prompt }}",
        license=("free",),
        parameters={"temperature": 0.5, "stop": ["a", "b"], "odd_one": True},
        messages=(Message("user", "hi"), Message("assistant", "ho")),
    )
    steps: list[Step] = []
    variants.create(first, on_step=steps.append)
    statuses = [step.status for step in steps]
    assert statuses[0].startswith("using existing layer sha256:")
    assert [status.split(":")[0] for status in statuses[1:-2]] == ["creating new layer sha256"] * 5
    assert statuses[-2:] == ["writing manifest", "success"]
    one = catalog.resolve("one")
    assert (one.system, one.template, one.license) == ("Be kind.", "{{ .Prompt }}", "mit\nfree")
    assert (one.parent, one.messages) == ("tiny:q4", (("user", "hi"), ("assistant", "ho")))
    variants.create(Wanted(name="two", base="ONE", parameters={"temperature": 1, "none": None}))
    two = catalog.resolve("two")
    assert two.parameters == {"temperature": 1, "stop": ["a", "b"], "odd_one": True}
    assert (two.system, two.template, two.messages, two.license, two.parent) == (
        one.system,
        one.template,
        one.messages,
        one.license,
        "one:latest",
    )
    variants.delete("one")
    assert catalog.resolve("two") == two
    variants.create(Wanted(name="two", base="two", messages=(Message("user", "new"),), license=("free", "more")))
    two = catalog.resolve("two")
    assert (two.messages, two.license, two.parent) == ((("user", "new"),), "mit\nfree\nmore", "")


def test_settings_for_a_variant(tmp_path: Path, store: Path) -> None:
    """models.d may name a variant, as it may any model in the store."""
    entries = (ModelTable(name="mine", context=99, args=("--x",)), ModelTable(name="tiny:q4", context=7, engine="vllm"))
    catalog = catalog_of(tmp_path, *entries, parallel=3)
    assert [problem.name for problem in catalog.problems()] == ["mine:latest"]
    Variants(catalog).create(Wanted(name="mine", base="tiny:q4", system="S"))
    mine = catalog.resolve("mine")
    assert (mine.context, mine.engine, mine.parallel, mine.engine_args, mine.system) == (99, "vllm", 3, ("--x",), "S")
    assert catalog.problems() == ()
    Variants(catalog).delete("mine")
    with pytest.raises(LoadFailedError, match="without a path"):
        catalog.resolve("mine")


def test_a_variant_over_its_own_base(catalog: Catalog, variants: Variants, store: Path) -> None:
    variants.create(Wanted(name="tiny:q4", base="tiny:q4", system="S"))
    assert (names(catalog), catalog.resolve("tiny:q4").system) == (["tiny:q4"], "S")
    variants.delete("tiny:q4")
    assert names(catalog) == []
    assert list(store.iterdir()) == []
    assert catalog.overlays.all() == {}


def test_what_cannot_be_created(variants: Variants) -> None:
    cases: list[tuple[Wanted, type[HyperLlamaError], str]] = [
        (Wanted(name="bad name", base="tiny:q4"), InvalidNameError, "invalid model name"),
        (Wanted(name="m"), BadRequestError, "neither 'from' or 'files' was specified"),
        (Wanted(name="m", base="nope"), ModelNotFoundError, "'nope' not found"),
        (Wanted(name="m", base="tiny:q4", adapters={"a": "b"}), BadRequestError, "invalid digest format"),
        (Wanted(name="m", base="tiny:q4", quantize="q8_0"), UnsupportedError, "quantising"),
        (Wanted(name="m", base="tiny:q4", files={"a": "b"}), BadRequestError, "both 'from' and 'files'"),
    ]
    for wanted, error, words in cases:
        with pytest.raises(error, match=words):
            variants.create(wanted)


def test_the_file_is_for_people(catalog: Catalog, variants: Variants) -> None:
    variants.create(Wanted(name="hf.co/Org/Mario:Q4", base="tiny:q4", system="one\ntwo", parameters={"top_k": 1}))
    path = catalog.overlays.directory / "hf.co+org+mario@q4.toml"
    text = path.read_text()
    assert 'name = "hf.co/Org/Mario:Q4"\nbase = "tiny:q4"\n' in text
    assert "one\ntwo" in text
    assert "[parameters]\ntop_k = 1\n" in text
    path.write_text(text.replace("two", "three"))
    assert catalog.resolve("hf.co/org/mario:q4").system == "one\nthree"


@pytest.mark.parametrize(
    "text",
    ["\r\n", "a\r\nb", '"""', "\\", "\x00\x1b\x7f", "é 🎉  ", "'''\n\"\"\"\n\\", " \n\t", "\ud800x", "\n\nx"],
)
def test_texts_survive(tmp_path: Path, text: str) -> None:
    overlays = Overlays(tmp_path / "variants")
    name = ModelName.parse("m")
    overlays.put(Overlay(name=name, base=name, system=text, parameters={text or "k": [text, 1, 0.5, {"a": text}]}))
    (path,) = (tmp_path / "variants").iterdir()
    assert tomllib.loads(path.read_text(encoding="utf-8"))["system"] == text.replace("\ud800", "?")
    read = Overlays(tmp_path / "variants").get(name)
    assert isinstance(read, Overlay)
    assert read.system == text.replace("\ud800", "?")


def test_long_names(tmp_path: Path) -> None:
    overlays = Overlays(tmp_path)
    long = [ModelName.parse(f"{'h' * 300}/{'n' * 80}/{'m' * 79}{end}:{'t' * 80}") for end in "xy"]
    for name in long:
        overlays.put(Overlay(name=name, base=name, system=name.model[-1]))
    assert [it.system for name in long if isinstance(it := overlays.get(name), Overlay)] == ["x", "y"]


def test_a_variant_whose_base_is_gone(catalog: Catalog, variants: Variants, store: Path) -> None:
    variants.copy("tiny:q4", "mine")
    shutil.rmtree(store / "tiny@q4")
    assert names(catalog) == []
    (problem,) = catalog.problems()
    assert (problem.name, "is not here any more" in problem.sentence) == ("mine:latest", True)
    with pytest.raises(LoadFailedError, match="is a variant of 'tiny:q4'"):
        catalog.resolve("mine")
    gguf(store / "tiny@q4" / "x.gguf")
    assert names(catalog) == ["mine:latest", "tiny:q4"]
    shutil.rmtree(store / "tiny@q4")
    variants.delete("mine")
    assert catalog.problems() == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"name = ",
        b"\xff",
        b'name = "mine"\n',
        b'name = "other"\nbase = "tiny:q4"',
        b'name = "mine"\nbase = 3',
        b'name = "mine"\nbase = "tiny:q4"\nsurprise = 1',
        b'name = "mine"\nbase = "bad name"',
        b"[" * 20000,
    ],
)
def test_a_file_that_makes_no_sense_is_a_problem(catalog: Catalog, variants: Variants, content: bytes) -> None:
    variants.copy("tiny:q4", "mine")
    path = catalog.overlays.directory / "mine@latest.toml"
    path.write_bytes(content)
    assert names(catalog) == ["tiny:q4"]
    (problem,) = catalog.problems()
    assert (problem.name, problem.path) == ("mine:latest", str(path))
    with pytest.raises(LoadFailedError, match=r"mine@latest\.toml"):
        catalog.resolve("mine")
    # Nobody knows whether it needs the files: they stay.
    variants.delete("tiny:q4")
    assert Path(catalog.store / "tiny@q4" / "x.gguf").exists()
    assert names(catalog) == []
    variants.delete("mine")
    assert garbage.collect(catalog)[0].path == catalog.store / "tiny@q4"
    assert list(catalog.store.iterdir()) == []


def test_delete_in_ollamas_words(variants: Variants) -> None:
    with pytest.raises(InvalidNameError):
        variants.delete("bad name")
    for _ in range(2):
        with pytest.raises(ModelNotFoundError) as missing:
            variants.delete("nope")
        assert missing.value.name == "nope"


def test_files_go_with_the_last_name(catalog: Catalog, variants: Variants, store: Path) -> None:
    variants.copy("tiny:q4", "a")
    variants.copy("a", "b")
    digest = catalog.resolve("a").digest
    variants.delete("tiny:q4")
    assert names(catalog) == ["a:latest", "b:latest"]
    with pytest.raises(ModelNotFoundError):
        catalog.resolve("tiny:q4")
    with pytest.raises(ModelNotFoundError):
        variants.delete("tiny:q4")
    with pytest.raises(ModelNotFoundError):
        variants.copy("tiny:q4", "c")
    variants.delete("a")
    assert catalog.resolve("b").digest == digest
    assert (store / "tiny@q4").exists()
    variants.copy("b", "tiny:q4")  # and back
    variants.delete("b")
    assert names(catalog) == ["tiny:q4"]
    variants.delete("tiny:q4")
    assert (names(catalog), list(store.iterdir()), catalog.overlays.all()) == ([], [], {})


def test_the_last_user_goes_elsewhere(catalog: Catalog, variants: Variants, store: Path) -> None:
    gguf(store / "other.gguf")
    variants.copy("tiny:q4", "a")
    variants.delete("tiny:q4")
    variants.copy("other", "a")
    assert not (store / "tiny@q4").exists()
    assert names(catalog) == ["a:latest", "other:latest"]


def test_what_lies_in_the_store_in_any_form_goes(catalog: Catalog, variants: Variants, store: Path) -> None:
    gguf(store / "bare.gguf")
    gguf(store / "split-00001-of-00002.gguf")
    gguf(store / "split-00002-of-00002.gguf")
    gguf(store / "ns" / "other" / "x.gguf")
    small_directory(store / "hf.co" / "org" / "repo@x")
    (store / "broken.gguf").write_bytes(b"noise")
    for name in ("bare", "split", "hf.co/org/repo:x", "broken", "tiny:q4"):
        variants.delete(name)
    assert names(catalog) == ["ns/other:latest"]
    assert catalog.problems() == ()
    assert sorted(path.name for path in store.rglob("*")) == ["ns", "other", "x.gguf"]


def test_what_is_never_removed(tmp_path: Path, store: Path) -> None:
    shared = small_directory(tmp_path / "cache" / "shared")
    outside = gguf(tmp_path / "outside" / "m.gguf")
    (store / "linked").symlink_to(shared)
    (store / "org").symlink_to(tmp_path / "cache")
    entry = ModelTable(name="stated", path="tiny@q4/x.gguf")
    catalog = catalog_of(tmp_path, entry, directories=(str(tmp_path / "outside"),))
    variants = Variants(catalog)
    before = names(catalog)
    assert before == ["linked:latest", "m:latest", "org/shared:latest", "stated:latest", "tiny:q4"]
    for name, words in {"stated": "models.d", "m": "outside the store", "org/shared": "outside the store"}.items():
        with pytest.raises(InUseError, match=words):
            variants.delete(name)
    assert names(catalog) == before
    variants.delete("linked")
    assert (shared / "config.json").exists()
    assert not (store / "linked").exists()
    variants.delete("tiny:q4")  # models.d needs its files
    assert names(catalog) == ["m:latest", "org/shared:latest", "stated:latest"]
    variants.create(Wanted(name="m", base="m", system="S"))
    variants.delete("m")
    assert (catalog.resolve("m").system, outside.exists()) == ("", True)
    assert garbage.collect(catalog) == ()


def test_a_disk_that_refuses(catalog: Catalog, variants: Variants, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "rename", full)
    with pytest.raises(StoreError, match=r"the variant a:latest cannot be written: the disk is full \(make room"):
        variants.copy("tiny:q4", "a")
    monkeypatch.undo()
    assert names(catalog) == ["tiny:q4"]
    assert list(catalog.overlays.directory.iterdir()) == []
    shutil.rmtree(catalog.overlays.directory)
    catalog.overlays.directory.write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        variants.copy("tiny:q4", "a")


# -- power cuts --------------------------------------------------------------------------------------------------------


def _copy(variants: Variants) -> None:
    variants.copy("tiny:q4", "fresh")


def _overwrite(variants: Variants) -> None:
    variants.create(Wanted(name="mine", base="other", system="new" * 9000, parameters={"top_k": 7}))


def _shadow(variants: Variants) -> None:
    variants.create(Wanted(name="other", base="tiny:q4", system="S"))


def _adapt(variants: Variants) -> None:
    digest = hashlib.sha256(lora_gguf()).hexdigest()
    variants.create(Wanted(name="mine", base="tiny:q4", adapters={"lora.gguf": f"sha256:{digest}"}))


def _delete_variant(variants: Variants) -> None:
    variants.delete("mine")


def _delete_model(variants: Variants) -> None:
    variants.delete("other")


def _delete_used(variants: Variants) -> None:
    variants.delete("tiny:q4")


def _delete_last_user(variants: Variants) -> None:
    variants.delete("last")


@pytest.mark.parametrize(
    "change", [_copy, _overwrite, _shadow, _adapt, _delete_variant, _delete_model, _delete_used, _delete_last_user]
)
def test_a_power_cut_at_every_change(
    tmp_path: Path, change: Callable[[Variants], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state afterwards is the one before or the one after, and the same again ends in the one after."""
    start = tmp_path / "start"
    small_directory(start / "state" / "models" / "other@latest")
    gguf(start / "state" / "models" / "tiny@q4" / "x.gguf")
    gguf(start / "state" / "models" / "hidden@q8" / "x.gguf")
    blob = start / "state" / "models" / ".blobs" / f"sha256-{hashlib.sha256(lora_gguf()).hexdigest()}"
    blob.parent.mkdir()
    blob.write_bytes(lora_gguf())
    setup = Variants(catalog_of(start))
    setup.copy("tiny:q4", "mine")
    setup.copy("hidden:q8", "last")
    setup.delete("hidden:q8")
    done = tmp_path / "done"
    shutil.copytree(start, done)
    change(Variants(catalog_of(done)))
    before, after = _state(start), _state(done)
    assert before != after

    reached, number = set(), 0
    power = Power(monkeypatch, tmp_path)
    while True:
        number += 1
        root = tmp_path / str(number)
        shutil.copytree(start, root)
        variants = Variants(catalog_of(root))
        variants._catalog.list()
        power.cut_at(number)
        try:
            change(variants)
            break
        except PowerCutError:
            power.lose()
        finally:
            power.cut_at(0)
        found = _state(root)
        assert found in (before, after), number
        reached.add(found == after)
        try:
            change(Variants(catalog_of(root)))
        except ModelNotFoundError:
            assert found == after
        assert _state(root) == after
        garbage.collect(catalog_of(root))
        assert _state(root) == after
    assert reached == {True, False} or change is _copy or change is _overwrite or change is _shadow
    assert number >= 3


def _state(root: Path) -> dict[str, tuple[str, str, object]]:
    """What a daemon that starts there lists; nothing may be broken."""
    catalog = catalog_of(root)
    assert catalog.problems() == ()
    return {model.name.short: (model.digest, model.system, model.parameters) for model in catalog.list()}


def test_what_could_not_be_read_again_is_not_written(variants: Variants, catalog: Catalog) -> None:
    with pytest.raises(BadRequestError, match=r"large:latest adds takes 16 MiB \(16 MiB is the most\)"):
        variants.create(Wanted(name="large", base="tiny:q4", system="a" * MAX_FILE))
    assert names(catalog) == ["tiny:q4"]
