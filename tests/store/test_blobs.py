"""Uploads and models made of them: checked, atomic, nothing copied, nothing left."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import ModelsTable
from hyperllamad.core.errors import BadRequestError, DiskFullError, InUseError
from hyperllamad.core.names import ModelName
from hyperllamad.store import blobs as blobs_module
from hyperllamad.store import disk, garbage, staging, uploaded
from hyperllamad.store.blobs import Blobs
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.steps import Step, ignore
from hyperllamad.store.variants import Variants
from tests.store.files import CONFIG, WEIGHTS, safetensors_bytes, small_gguf
from tests.store.power import Power, PowerCutError


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def blobs(models: Path) -> Blobs:
    return Blobs(models)


@pytest.fixture
def catalog(tmp_path: Path, models: Path) -> Catalog:
    return Catalog(Paths(config=tmp_path, state=tmp_path, cache=tmp_path, runtime=tmp_path), ModelsTable(), ())


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def chunks(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


def put(blobs: Blobs, content: bytes) -> str:
    """Store without a loop."""
    blobs.directory.mkdir(exist_ok=True)
    blobs.path(digest_of(content)).write_bytes(content)
    return digest_of(content)


async def test_an_upload(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "BATCH", 3000)
    content = os.urandom(10_001)
    digest = digest_of(content)
    assert not blobs.has(digest)
    assert await blobs.receive(digest, chunks(content))
    assert blobs.has(digest.replace(":", "-"))
    assert blobs.path(digest).read_bytes() == content

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    assert not await blobs.receive(digest, never())
    assert [path.name for path in blobs.directory.iterdir()] == [digest.replace(":", "-")]


async def test_an_empty_upload(blobs: Blobs) -> None:
    assert await blobs.receive(digest_of(b""), chunks(b""))
    assert blobs.path(digest_of(b"")).read_bytes() == b""


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "g" * 64, "md5:" + "0" * 64, "sha256:../" + "0" * 61]
)
async def test_malformed_digests(blobs: Blobs, digest: str) -> None:
    with pytest.raises(BadRequestError, match=r"^invalid digest format$"):
        blobs.has(digest)
    with pytest.raises(BadRequestError, match=r"^invalid digest format$"):
        await blobs.receive(digest, chunks(b"x"))


async def test_other_bytes_than_promised(blobs: Blobs) -> None:
    with pytest.raises(BadRequestError) as failure:
        await blobs.receive(digest_of(b"a"), chunks(b"b"))
    assert failure.value.message == f'digest mismatch, expected "{digest_of(b"a")}", got "{digest_of(b"b")}"'
    assert list(blobs.directory.iterdir()) == []


async def test_a_client_that_goes_away(blobs: Blobs) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(BaseException):  # noqa: B017  # whatever the listener raises: nothing may remain
        await blobs.receive(digest_of(b"whole"), broken())
    arrived = anyio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"half"
        arrived.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(blobs.receive, digest_of(b"whole"), stuck())
        await arrived.wait()
        tasks.cancel_scope.cancel()
    assert list(blobs.directory.iterdir()) == []


async def test_the_disk_is_not_filled_to_its_end(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"a" * 1000
    room = disk.RESERVE + 999
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=room))
    with pytest.raises(DiskFullError, match=r"with the room that is kept free, needs 67\.1 MB"):
        await blobs.receive(digest_of(content), chunks(content))
    assert list(blobs.directory.iterdir()) == []
    room += 1
    assert await blobs.receive(digest_of(content), chunks(content))


async def test_the_same_from_ten_clients(blobs: Blobs) -> None:
    content = os.urandom(50_000)
    results = []
    ready = anyio.Event()
    waiting = 0

    async def together() -> AsyncIterator[bytes]:
        nonlocal waiting
        waiting += 1
        if waiting == 10:
            ready.set()
        await ready.wait()
        async for chunk in chunks(content):
            yield chunk

    async def post() -> None:
        results.append(await blobs.receive(digest_of(content), together()))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(post)
    assert (len(results), waiting) == (10, 10)
    (path,) = blobs.directory.iterdir()
    assert path.read_bytes() == content


async def test_a_full_disk(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "rename", full)
    with pytest.raises(DiskFullError, match="the disk is full"):
        await blobs.receive(digest_of(b"x"), chunks(b"x"))
    assert list(blobs.directory.iterdir()) == []


# -- models of uploaded files ----------------------------------------------------------------------------------------


NAME = ModelName.parse("mine")
Build = Callable[..., list[str]]


@pytest.fixture
def build(models: Path, blobs: Blobs, catalog: Catalog) -> Build:
    def build(**files: bytes) -> list[str]:
        steps: list[Step] = []
        digests = {name: put(blobs, content) for name, content in files.items()}
        uploaded.build(NAME, Variants(catalog).target(NAME), digests, blobs, steps.append)
        return [step.status for step in steps]

    return build


def test_a_gguf_becomes_a_model_without_a_copy(build: Build, catalog: Catalog, blobs: Blobs) -> None:
    content = small_gguf()
    assert build(**{"model.gguf": content}) == [f"using existing layer {digest_of(content)}"]
    model = catalog.resolve("mine")
    assert Path(model.path).samefile(blobs.path(digest_of(content)))
    assert blobs.unused() == ()
    Variants(catalog).delete("mine")
    assert list(blobs.directory.iterdir()) == []


def test_where_files_cannot_have_two_names(build: Build, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    build(model=small_gguf())
    path = Path(catalog.resolve("mine").path)
    assert [entry.name for entry in path.parent.iterdir()] == ["model.gguf"]
    assert path.read_bytes() == small_gguf()


def test_a_gguf_is_known_by_its_first_bytes(build: Build, catalog: Catalog) -> None:
    projector = small_gguf(general__architecture="clip", tokenizer__ggml__model=None)
    build(model=small_gguf(), vision=projector)
    assert sorted(path.name for path in Path(catalog.resolve("mine").path).parent.iterdir()) == [
        "mmproj-vision.gguf",
        "model.gguf",
    ]


def test_a_directory(build: Build, catalog: Catalog) -> None:
    build(
        **{
            "config.json": json.dumps(CONFIG).encode(),
            "model.safetensors": safetensors_bytes(WEIGHTS, format="pt"),
            "1_Pooling/config.json": b"{}",
        }
    )
    model = catalog.resolve("mine")
    assert (model.parameter_count, (Path(model.path) / "1_Pooling" / "config.json").exists()) == (24, True)


def test_another_takes_its_place(build: Build, catalog: Catalog, blobs: Blobs, models: Path) -> None:
    build(model=small_gguf())
    first = catalog.resolve("mine").digest
    build(model=small_gguf(llama__context_length=77))
    assert catalog.resolve("mine").context_length == 77
    assert catalog.resolve("mine").digest != first
    assert sorted(path.name for path in models.iterdir()) == [".blobs", "mine@latest"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"/model.gguf": small_gguf()}, "file path must be relative"),
        ({"../model.gguf": small_gguf()}, "file path must be relative"),
        ({"": small_gguf()}, "file path must be relative"),
        # It would be believed by the next pull of a model that is said to have a file of that checksum.
        ({"model.safetensors": b"", ".origin.json": b"{}"}, "the file .origin.json has a name that the store keeps"),
        ({"model.safetensors": b"", ".adapters/x": b""}, "the file .adapters/x has a name that the store keeps"),
        ({"model.gguf": b"noise"}, "supplied file was not in GGUF format"),
        ({"model.bin": b"noise"}, "unknown type"),
        ({"model.gguf": small_gguf()[:-9]}, "the files make no model: model.gguf is truncated"),
        ({"model.gguf": small_gguf()[:99]}, "model.gguf is not a usable GGUF file"),
        ({"a/m.gguf": small_gguf(), "b/m.gguf": small_gguf()}, "two of the files have the same name"),
        ({"a.gguf": small_gguf(), "b.gguf": small_gguf()}, "the files make no model: the upload holds several models"),
        ({"model.safetensors": b"noise"}, "no config.json"),
        ({"config.json": b"{", "model.safetensors": b"noise"}, "config.json is not valid JSON"),
    ],
)
def test_files_that_make_no_model(build: Build, models: Path, files: dict[str, bytes], words: str) -> None:
    with pytest.raises(BadRequestError, match=words) as failure:
        build(**files)
    assert str(models) not in failure.value.message
    assert [path.name for path in models.iterdir()] == [".blobs"]


def test_a_file_that_was_not_uploaded(models: Path, blobs: Blobs) -> None:
    with pytest.raises(BadRequestError, match=r"is not here .upload it first with POST /api/blobs/sha256:"):
        uploaded.build(NAME, models / "m", {"m.gguf": digest_of(b"x")}, blobs, ignore)
    with pytest.raises(BadRequestError, match="invalid digest format"):
        uploaded.build(NAME, models / "m", {"m.gguf": "x"}, blobs, ignore)


def test_while_another_builds_it(build: Build, models: Path) -> None:
    with staging.stage(models / "mine@latest"), pytest.raises(InUseError, match="another process is writing"):
        build(model=small_gguf())


def test_a_power_cut_at_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name leads to the old model, to the new one, or (between two renames) to none; never to half of one."""
    seen, number = set(), 0
    power = Power(monkeypatch, tmp_path)
    while True:
        number += 1
        root = tmp_path / str(number)
        (root / "models").mkdir(parents=True)
        blobs = Blobs(root / "models")
        digests = [put(blobs, small_gguf(llama__context_length=size)) for size in (1, 2)]
        target = root / "models" / "mine@latest"
        uploaded.build(NAME, target, {"m": digests[0]}, blobs, ignore)
        power.cut_at(number)
        try:
            uploaded.build(NAME, target, {"m": digests[1]}, blobs, ignore)
            break
        except PowerCutError:
            power.lose()
        finally:
            power.cut_at(0)
        catalog = Catalog(Paths(config=root, state=root, cache=root, runtime=root), ModelsTable(), ())
        assert catalog.problems() == ()
        seen.add(tuple(model.context_length for model in catalog.list()))
        uploaded.build(NAME, target, {"m": digests[1]}, blobs, ignore)
        garbage.collect(catalog)
        assert catalog.resolve("mine").context_length == 2
        assert sorted(path.name for path in (root / "models").iterdir()) == [".blobs", "mine@latest"]
    assert seen == {(1,), (), (2,)}


# -- garbage ---------------------------------------------------------------------------------------------------------


def test_garbage(build: Build, catalog: Catalog, blobs: Blobs, models: Path) -> None:
    build(model=small_gguf())
    old = blobs.path(put(blobs, b"old"))
    young = blobs.path(put(blobs, b"young"))
    broken = blobs.directory / ".sha256-0.x.tmp"
    broken.write_bytes(b"half")
    abandoned, going, locked = (models / f".{name}.partial" for name in ("abandoned", "going", "locked"))
    for directory in (abandoned, going, locked):
        directory.mkdir()
        (directory / "half").write_bytes(b"12345")
    (models / "ns").mkdir()
    (models / "ns" / ".m.deleted").mkdir()
    for path in (old, broken, abandoned, abandoned / "half", locked, locked / "half"):
        os.utime(path, (1e9, 1e9))
    expected = {old, broken, abandoned, locked, models / "ns" / ".m.deleted"}
    dry = garbage.collect(catalog, dry_run=True)
    assert {item.path for item in dry} == expected
    assert {item.path: item.size for item in dry}[abandoned] == 5
    assert all(path.exists() for path in expected)
    with staging.locked(locked):
        assert garbage.collect(catalog) == dry
    assert {path for path in expected if path.exists()} == {locked}
    assert young.exists()
    assert (going / "half").exists()
    assert catalog.resolve("mine").context_length == 512
