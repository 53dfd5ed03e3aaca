"""A power cut at every change to the disk: each model is whole before it or after it, and nothing stays behind."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperllamad.core.errors import ModelNotFoundError
from hyperllamad.store import garbage
from hyperllamad.store.variants import Variants, Wanted
from tests.store.files import small_directory
from tests.store.lora import lora_gguf
from tests.store.power import Power, PowerCutError
from tests.store.variants.stores import catalog_of, gguf


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
