"""The files that variants are kept in: for people, too, and whatever stands in them."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from hyperllamad.core.errors import BadRequestError, LoadFailedError
from hyperllamad.core.names import ModelName
from hyperllamad.store import garbage
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.overlays import MAX_FILE, Overlay, Overlays
from hyperllamad.store.variants import Variants, Wanted
from tests.store.variants.stores import gguf, names


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


def test_what_could_not_be_read_again_is_not_written(variants: Variants, catalog: Catalog) -> None:
    with pytest.raises(BadRequestError, match=r"large:latest adds takes 16 MiB \(16 MiB is the most\)"):
        variants.create(Wanted(name="large", base="tiny:q4", system="a" * MAX_FILE))
    assert names(catalog) == ["tiny:q4"]
