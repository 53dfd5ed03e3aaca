"""Copies and variants: what is inherited, and what cannot be made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyperllamad.config.tables import ModelTable
from hyperllamad.core.errors import (
    BadRequestError,
    HyperLlamaError,
    InvalidNameError,
    LoadFailedError,
    ModelNotFoundError,
    UnsupportedError,
)
from hyperllamad.core.models import Message, Settings, key_of
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.steps import Step
from hyperllamad.store.variants import Variants, Wanted
from tests.store.variants.stores import catalog_of, names


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
