"""Pulls through the real client from a hub of our own: what is fetched, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperllamad.config.tables import ModelTable
from hyperllamad.core.errors import (
    InUseError,
    PullFailedError,
    RepositoryNotFoundError,
    UnknownShortNameError,
    UnsupportedError,
)
from hyperllamad.store.steps import Step
from hyperllamad.store.variants import Wanted
from tests.store.files import sharded_directory, small_gguf
from tests.store.hub import Hub
from tests.store.pulling import NAME, Open, directory


# -- what is fetched ---------------------------------------------------------------------------------------------------
async def test_a_directory(hub: Hub, opened: Open, tmp_path: Path) -> None:
    hub.put("org/repo", directory(tmp_path, sharded_directory))
    async with opened() as store:
        steps = await store.pull()
        statuses = [step.status for step in steps]
        assert statuses[0] == "pulling manifest"
        assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
        layers = {step.digest: step for step in steps[1:-3]}
        assert len(layers) == 6
        for digest, step in layers.items():
            assert (step.status, step.completed, len(digest)) == (f"pulling {digest[7:19]}", step.total, 71)
        assert set(hub.served) == {
            "LICENSE",
            "config.json",
            "model.safetensors.index.json",
            *(f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)),
        }
        assert store.listed() == ["hf.co/org/repo:latest"]
        model = store.catalog.resolve(NAME)
        assert (model.license, Path(model.path).name) == ("free", "repo@latest")
        assert list(store.models.rglob("*.partial")) == []
        # Again: nothing is fetched, and one line for each layer says so.
        before = hub.served.copy()
        told = [step for step in await store.pull() if step.digest]
        assert ({step.digest: step for step in told}, len(told)) == (layers, 6)  # which came first, was chance
        assert hub.served == before


@pytest.mark.parametrize(
    ("variant", "fetched"),
    [
        ("", {"m-Q4_K_M.gguf"}),
        (":Q8_0", {"m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"}),
        (":q8_0", {"m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"}),
        (":m-IQ3_XS", {"m-IQ3_XS.gguf"}),
    ],
)
async def test_one_gguf_of_many(hub: Hub, opened: Open, variant: str, fetched: set[str]) -> None:
    names = ("m-IQ3_XS.gguf", "m-Q4_K_M.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf")
    hub.put("org/repo", {**{name: small_gguf() for name in names}, "mmproj-F16.gguf": b"p" * 5000, "README.md": b"r"})
    async with opened() as store:
        await store.pull(NAME + variant)
        assert set(hub.served) == fetched
        assert store.catalog.resolve(NAME + variant).context_length == 512


async def test_short_names_and_what_is_refused_at_once(hub: Hub, opened: Open) -> None:
    hub.put("Qwen/Qwen3-0.6B-GGUF", {"Qwen3-0.6B-Q8_0.gguf": small_gguf()})
    async with opened(ModelTable(name="org/stated", path="/nowhere")) as store:
        await store.pull("Qwen3:0.6b")
        assert [model.name.short for model in store.catalog.list()] == ["Qwen3:0.6b"]
        for name, error in {"lama": UnknownShortNameError, "x.org/a/b": RepositoryNotFoundError}.items():
            with pytest.raises(error):
                await store.library.pull(name)
        with pytest.raises(InUseError, match=r"models\.d"):
            await store.library.pull("org/stated")


async def test_nothing_an_engine_reads(hub: Hub, opened: Open, tmp_path: Path) -> None:
    hub.put("org/old", {"config.json": b"{}", "pytorch_model.bin": b"x" * 5000})
    hub.put("org/repo", directory(tmp_path) | {"config.json": b"{"})
    hub.put("org/m-gguf", {"m-Q4_0.gguf": small_gguf()})
    async with opened() as store:
        with pytest.raises(UnsupportedError, match=r"only \.bin files"):
            await store.pull("org/old")
        with pytest.raises(RepositoryNotFoundError, match=r"has no variant 'Q9' .there is Q4_0"):
            await store.pull("org/m-gguf:Q9")
        with pytest.raises(PullFailedError, match=r"org/repo cannot be used: config\.json is not valid JSON"):
            await store.pull()
        assert store.listed() == []


async def test_a_new_version_fetches_what_changed(hub: Hub, opened: Open, tmp_path: Path) -> None:
    files = directory(tmp_path, sharded_directory)
    hub.put("org/repo", files)
    async with opened() as store:
        await store.pull()
        await store.library.create(Wanted(name=NAME, base=NAME, system="S"))
        assert store.catalog.resolve(NAME).system == "S"
        hub.served.clear()
        hub.put("org/repo", files | {"config.json": files["config.json"] + b"\n"})
        before = store.catalog.resolve(NAME).digest
        await store.pull()
        assert set(hub.served) == {"config.json"}
        assert store.catalog.resolve(NAME).digest != before
        assert store.catalog.resolve(NAME).system == ""
        assert [path.name for path in store.models.rglob(".*")] == [".origin.json"]


async def test_the_same_under_another_name(hub: Hub, opened: Open) -> None:
    """Nothing is fetched, nothing is stored twice, and each can go without the other."""
    hub.put("Qwen/Qwen3-8B-GGUF", {"Qwen3-8B-Q4_K_M.gguf": small_gguf()})
    async with opened() as store:
        await store.pull("qwen3")
        hub.served.clear()
        await store.pull("qwen3:8b")
        assert hub.served == {}
        assert Path(store.catalog.resolve("qwen3").path).samefile(store.catalog.resolve("qwen3:8b").path)
        await store.library.delete("qwen3")
        assert store.listed() == ["qwen3:8b"]


async def test_what_did_not_come_from_a_hub_stays(opened: Open) -> None:
    async with opened() as store:
        for path in (store.models / "mistral.gguf", store.models / "org" / "repo" / "x.gguf"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(small_gguf())
        for name in ("mistral", "org/repo"):
            with pytest.raises(InUseError, match="did not come from a hub"):
                await store.library.pull(name)


async def test_create_pulls_what_is_missing(hub: Hub, opened: Open) -> None:
    hub.put("org/repo", {"m.gguf": small_gguf()})
    async with opened() as store:
        steps: list[Step] = []
        await store.library.create(Wanted(name="mine", base="org/repo", system="S"), on_step=steps.append)
        statuses = [step.status for step in steps]
        assert (statuses[0], statuses.count("success"), statuses[-1]) == ("pulling manifest", 1, "success")
        assert store.catalog.resolve("mine").system == "S"
        await store.library.delete("org/repo")
        assert store.listed() == ["mine:latest"]
        await store.pull("org/repo")
        assert sorted(store.listed()) == ["mine:latest", "org/repo:latest"]
        with pytest.raises(RepositoryNotFoundError):
            await store.library.create(Wanted(name="mine", base="org/none"))
