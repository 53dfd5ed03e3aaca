"""Variants with LoRA adapters: other weights, kept while a name needs the file, refused where none applies."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import ModelsTable
from hyperllamad.core.errors import BadRequestError, HyperLlamaError, LoadFailedError, UnsupportedError
from hyperllamad.store import garbage
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.variants import Variants, Wanted
from tests.store.files import small_directory, small_gguf
from tests.store.lora import lora_gguf


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    paths = Paths(config=tmp_path, state=tmp_path / "state", cache=tmp_path, runtime=tmp_path)
    (paths.models / "tiny@q4").mkdir(parents=True)
    (paths.models / "tiny@q4" / "x.gguf").write_bytes(small_gguf())
    small_directory(paths.models / "dir@latest")
    return Catalog(paths, ModelsTable(), ())


@pytest.fixture
def variants(catalog: Catalog) -> Variants:
    return Variants(catalog)


def upload(catalog: Catalog, data: bytes) -> str:
    """The digest of a blob that is there now."""
    found = hashlib.sha256(data).hexdigest()
    path = catalog.store / ".blobs" / f"sha256-{found}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return f"sha256:{found}"


def kept(catalog: Catalog) -> list[str]:
    return sorted(str(path.relative_to(catalog.store)) for path in catalog.store.rglob(".*/*"))


def test_other_weights_under_another_name(catalog: Catalog, variants: Variants) -> None:
    base = catalog.resolve("tiny:q4")
    data = lora_gguf()
    digest = upload(catalog, data)
    variants.create(Wanted(name="a", base="tiny:q4", adapters={"lora.gguf": digest}))
    made = catalog.resolve("a")
    (path,) = map(Path, made.adapters)
    assert path.read_bytes() == data
    assert path.stat().st_nlink == 2, "no bytes are copied"
    assert (made.path, made.size) == (base.path, base.size + len(data))
    assert made.digest != base.digest
    assert catalog.resolve("tiny:q4") == base
    assert made in catalog.list()
    variants.copy("a", "b")
    variants.create(Wanted(name="c", base="a", system="S"))
    assert {catalog.resolve(name).digest for name in "abc"} == {made.digest}
    variants.create(Wanted(name="d", base="a", adapters={"x": upload(catalog, lora_gguf(size=2.0))}))
    both = catalog.resolve("d")
    assert (both.adapters[0], len(both.adapters)) == (str(path), 2)
    assert both.digest not in {made.digest, base.digest}


def test_the_file_goes_with_the_last_name(catalog: Catalog, variants: Variants) -> None:
    digest = upload(catalog, lora_gguf())
    files = [f".adapters/{digest.replace(':', '-')}.gguf", f".blobs/{digest.replace(':', '-')}"]
    variants.create(Wanted(name="a", base="tiny:q4", adapters={"lora.gguf": digest}))
    variants.copy("a", "b")
    variants.delete("a")
    assert garbage.collect(catalog) == ()
    assert kept(catalog) == files
    broken = catalog.overlays.directory / "odd@latest.toml"
    broken.write_text("name = ")  # nobody knows what it needs
    variants.delete("b")
    assert kept(catalog) == files
    broken.unlink()
    (told,) = garbage.collect(catalog, dry_run=True)
    assert (str(told.path.relative_to(catalog.store)), told.size) == (files[0], len(lora_gguf()))
    assert kept(catalog) == files
    garbage.collect(catalog)
    assert kept(catalog) == []
    assert catalog.resolve("tiny:q4").adapters == ()


def test_made_again_without_it(catalog: Catalog, variants: Variants) -> None:
    digest = upload(catalog, lora_gguf())
    for _ in range(2):
        variants.create(Wanted(name="a", base="tiny:q4", adapters={"lora.gguf": digest}))
        assert len(catalog.resolve("a").adapters) == 1
    variants.create(Wanted(name="a", base="tiny:q4", system="S"))
    assert (catalog.resolve("a").adapters, kept(catalog)) == ((), [])


def test_a_file_of_this_machine_stays_where_it_is(catalog: Catalog, variants: Variants, tmp_path: Path) -> None:
    path = tmp_path / "lora.gguf"
    path.write_bytes(lora_gguf())
    variants.create(Wanted(name="a", base="tiny:q4", adapter_paths=(str(path),)))
    first = catalog.resolve("a")
    assert (first.adapters, kept(catalog)) == ((str(path),), [])
    path.write_bytes(lora_gguf(size=3.0))
    assert catalog.resolve("a").digest != first.digest
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(
        LoadFailedError, match=r"'a:latest' cannot be used with its adapter: .*lora\.gguf cannot be read"
    ):
        catalog.resolve("a")
    assert [problem.name for problem in catalog.problems()] == ["a:latest"]
    (tmp_path / "elsewhere").rename(path)
    assert catalog.resolve("a").adapters == (str(path),)
    variants.delete("a")
    assert path.exists()


@pytest.mark.parametrize(
    ("base", "data", "error", "words"),
    [
        ("tiny:q4", small_gguf(), BadRequestError, r"^x\.gguf is not a LoRA adapter "),
        ("tiny:q4", lora_gguf(adapter__type="control"), BadRequestError, "is not a LoRA adapter"),
        (
            "tiny:q4",
            lora_gguf(general__architecture="qwen2"),
            BadRequestError,
            "of architecture qwen2, and 'tiny:q4' is",
        ),
        ("tiny:q4", lora_gguf()[:-9], BadRequestError, r"^x\.gguf is truncated"),
        ("tiny:q4", b"noise" * 99, BadRequestError, r"x\.gguf"),
        ("dir", lora_gguf(), UnsupportedError, "llama.cpp alone applies them"),
    ],
)
def test_what_is_no_adapter_for_the_model(
    catalog: Catalog, base: str, data: bytes, error: type[HyperLlamaError], words: str
) -> None:
    with pytest.raises(error, match=words):
        Variants(catalog).create(Wanted(name="a", base=base, adapters={"x.gguf": upload(catalog, data)}))
    assert catalog.overlays.all() == {}
    assert not (catalog.store / ".adapters").exists()


def test_where_an_adapter_may_lie(variants: Variants, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], type[HyperLlamaError], str]] = [
        ({"adapters": {"x": "sha256:" + "0" * 64}}, BadRequestError, r"the adapter x \(sha256:0+\) is not here"),
        ({"adapter_paths": ["/a\0b"]}, BadRequestError, "not an absolute path"),
        ({"adapter_paths": ["lora.gguf"]}, BadRequestError, "not an absolute path"),
        ({"adapter_paths": [str(tmp_path)]}, UnsupportedError, "is not a GGUF file"),
        ({"adapter_paths": ["/nowhere.gguf"]}, BadRequestError, "cannot be read"),
    ]
    for given, error, words in cases:
        with pytest.raises(error, match=words):
            variants.create(Wanted(name="a", base="tiny:q4", **given))


def test_a_path_that_cannot_be(catalog: Catalog, variants: Variants) -> None:
    """Whatever a person writes into a variant's file, the other models are still listed."""
    variants.copy("tiny:q4", "a")
    path = catalog.overlays.path(catalog.resolve("a").name)
    path.write_text(f'adapters = ["/a\\u0000b"]\n{path.read_text()}')
    assert sorted(model.name.short for model in catalog.list()) == ["dir:latest", "tiny:q4"]
    assert [problem.name for problem in catalog.problems()] == ["a:latest"]
