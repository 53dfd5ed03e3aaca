"""Deletes: files go with their last name, and what is not the store's stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hyperllamad.config.tables import ModelTable
from hyperllamad.core.errors import InUseError, InvalidNameError, ModelNotFoundError, StoreError
from hyperllamad.store import disk, garbage
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.variants import Variants, Wanted
from tests.store.files import small_directory
from tests.store.variants.stores import catalog_of, gguf, names


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
