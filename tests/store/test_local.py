"""Models that lie elsewhere: only links are made, nothing of others is touched, a power cut leaves no half of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import ModelsTable
from hyperllamad.core.errors import BadRequestError, InUseError, StoreError
from hyperllamad.core.names import ModelName
from hyperllamad.store import garbage, layout, local, staging
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.inspect import inspect
from hyperllamad.store.steps import ignore
from hyperllamad.store.variants import Variants
from tests.store.files import sharded_directory, small_gguf
from tests.store.power import Power, PowerCutError

NAME = ModelName.parse("mine")


def catalog_of(root: Path) -> Catalog:
    return Catalog(Paths(config=root, state=root, cache=root, runtime=root), ModelsTable(), ())


def gguf(path: Path, size: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_gguf(llama__context_length=size))
    return path


def register(root: Path, source: Path) -> None:
    local.register(NAME, root / "models" / "mine@latest", source, ignore)


def test_a_directory_with_everything_that_lies_in_it(tmp_path: Path) -> None:
    source = sharded_directory(tmp_path / "hf")
    (source / "README.md").write_text("for people")
    (source / "original").mkdir()
    (source / ".cache").mkdir()
    register(tmp_path, source)
    (model,) = catalog_of(tmp_path).list()
    assert model.digest == inspect(NAME, layout.locate(source)).digest
    links = {path.name: path.readlink() for path in Path(model.path).iterdir()}
    assert links == {path.name: path for path in source.iterdir() if path.name != ".cache"}
    assert not any(path.is_file() and not path.is_symlink() for path in Path(model.path).iterdir())


def test_deleting_it_leaves_what_it_led_to(tmp_path: Path) -> None:
    source = sharded_directory(tmp_path / "hf")
    before = {path: path.read_bytes() for path in source.iterdir()}
    register(tmp_path, source)
    Variants(catalog_of(tmp_path)).delete("mine")
    garbage.collect(catalog_of(tmp_path))
    assert list((tmp_path / "models").glob("*mine*")) == []
    assert {path: path.read_bytes() for path in source.iterdir()} == before


def test_what_it_led_to_is_gone(tmp_path: Path) -> None:
    source = gguf(tmp_path / "elsewhere" / "x.gguf")
    register(tmp_path, source)
    source.unlink()
    catalog = catalog_of(tmp_path)
    assert catalog.list() == ()
    assert [problem.name for problem in catalog.problems()] == ["mine:latest"]
    Variants(catalog).delete("mine")
    assert catalog_of(tmp_path).problems() == ()


def test_files_of_others_are_not_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's user may not even be able to open those that no engine needs."""
    source = sharded_directory(tmp_path / "hf")
    synced, real = set(), os.fsync

    def fsync(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    register(tmp_path, source)
    assert not synced & {path.stat().st_ino for path in source.iterdir()}
    assert (tmp_path / "models" / "mine@latest").stat().st_ino in synced


def test_what_the_daemon_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = gguf(tmp_path / "x.gguf")
    monkeypatch.setattr(os, "access", lambda path, _: path != source)
    with pytest.raises(BadRequestError, match=r"x\.gguf may not be read by the daemon") as refused:
        register(tmp_path, source)
    assert "the daemon's user" in (refused.value.hint or "")
    assert not (tmp_path / "models").exists()


def test_while_another_writes_it(tmp_path: Path) -> None:
    source = gguf(tmp_path / "x.gguf")
    with staging.stage(tmp_path / "models" / "mine@latest"), pytest.raises(InUseError, match="another process"):
        register(tmp_path, source)


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    source = gguf(tmp_path / "x.gguf")
    (tmp_path / "models").write_text("")
    with pytest.raises(StoreError, match="the model mine:latest cannot be written"):
        register(tmp_path, source)


def test_a_power_cut_at_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name leads to the old model, to the new one, or (between two renames) to none; never to half of one."""
    sources = [gguf(tmp_path / "elsewhere" / f"{size}.gguf", size) for size in (1, 2)]
    seen, number = set(), 0
    power = Power(monkeypatch, tmp_path)
    while True:
        number += 1
        root = tmp_path / str(number)
        register(root, sources[0])
        power.cut_at(number)
        try:
            register(root, sources[1])
            break
        except PowerCutError:
            power.lose()
        finally:
            power.cut_at(0)
        catalog = catalog_of(root)
        assert catalog.problems() == ()
        seen.add(tuple(model.context_length for model in catalog.list()))
        register(root, sources[1])
        garbage.collect(catalog)
        assert catalog.resolve("mine").context_length == 2
        assert [path.name for path in (root / "models").iterdir()] == ["mine@latest"]
    assert seen == {(1,), (), (2,)}
    assert [source.read_bytes() for source in sources] == [small_gguf(llama__context_length=size) for size in (1, 2)]
