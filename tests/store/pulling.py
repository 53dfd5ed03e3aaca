"""A hub's files, and a library that pulls them: what the tests of pulls share."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec

from hyperllamad.config.load import load_config
from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import Config, ModelTable
from hyperllamad.store import fetching
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.fetch_wire import Request
from hyperllamad.store.library import Library
from hyperllamad.store.steps import Step
from tests.store.files import Tensor, gguf_bytes, small_directory
from tests.store.hub import Hub

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
NAME = "hf.co/org/repo"
CHUNK = 256 << 10  # bytes that the client writes at once: hub.CHUNK, which is not imported here


def big_gguf(megabytes: int = 4, seed: int = 1) -> bytes:
    """A model whose weights take so many MiB, different in every byte."""
    data = random.Random(seed).randbytes(megabytes * MIB)
    tensor = Tensor("token_embd.weight", (1024, megabytes * 256), 0, data)
    return gguf_bytes({"general.architecture": "llama", "llama.context_length": 512}, [tensor])


def directory(tmp_path: Path, make: Callable[[Path], Path] = small_directory) -> dict[str, bytes]:
    """The files of a Hugging Face directory, with what nobody needs beside them."""
    path = make(tmp_path / "source")
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    return files | {
        "README.md": b"r" * 5000,
        "pytorch_model.bin": b"b" * 5000,
        "original/consolidated.00.pth": b"o" * 5000,
        "consolidated.safetensors": b"c" * 5000,
        "LICENSE": b"free",
    }


def config_of(root: Path, *models: ModelTable) -> Config:
    paths = Paths(config=root, state=root / "state", cache=root, runtime=root)
    paths.models.mkdir(parents=True, exist_ok=True)
    return msgspec.structs.replace(load_config(root, {}), paths=paths, model=models)


def environ_of(hub: Hub, root: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(root / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        "NO_PROXY": "127.0.0.1",
        **more,
    }


class Store:
    """A library with its downloads running."""

    def __init__(self, library: Library, config: Config) -> None:
        self.library = library
        self.catalog = Catalog(config.paths, config.models, config.model)
        self.models = config.paths.models

    async def pull(self, name: str = NAME) -> list[Step]:
        with await self.library.pull(name) as watch:
            return [step async for step in watch]

    def listed(self) -> list[str]:
        assert self.catalog.problems() == ()
        return [model.name.short for model in self.catalog.list()]

    def partial(self) -> Path:
        (path,) = self.models.rglob("*.partial")
        return path

    def kept(self) -> int:
        """Bytes of the file that is coming in."""
        incoming = list(self.models.rglob(f"*.partial/{fetching.INCOMING}/*"))
        return sum(path.stat().st_size for path in incoming)


Open = Callable[..., Any]


async def wait_until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


def request(hub: Hub, target: Path, **more: Any) -> bytes:
    return (
        msgspec.json.encode(
            Request(name="m", repository="org/repo", target=str(target), store=str(target.parent), **more)
        )
        + b"\n"
    )
