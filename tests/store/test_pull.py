"""Pulls through the real client from a hub of our own: progress, resuming, sharing, and everything that breaks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Semaphore
from typing import Any

import anyio
import msgspec
import pytest

from hyperllamad.config.load import load_config
from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import Config, ModelTable
from hyperllamad.core.errors import (
    ClosingError,
    DiskFullError,
    HyperLlamaError,
    InUseError,
    PullFailedError,
    RepositoryNotFoundError,
    UnknownShortNameError,
    UnsupportedError,
)
from hyperllamad.store import fetching, pull, shortnames
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.fetch_wire import Request
from hyperllamad.store.library import Library
from hyperllamad.store.steps import Step
from hyperllamad.store.variants import Wanted
from tests.store import hub as hub_module
from tests.store.files import Tensor, gguf_bytes, sharded_directory, small_directory, small_gguf
from tests.store.hub import Hub

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


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_module.serve() as hub:
        yield hub


def config_of(root: Path, *models: ModelTable) -> Config:
    paths = Paths(config=root, state=root / "state", cache=root, runtime=root)
    paths.models.mkdir(parents=True, exist_ok=True)
    return msgspec.structs.replace(load_config(root, {}), paths=paths, model=models)


def environ_of(hub: Hub, root: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
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


@pytest.fixture
def opened(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    patient = pull.Request

    def hasty(**fields: Any) -> Request:
        return patient(**{**fields, "attempts": 2, "pause": 0.01, "reserve": 0})

    monkeypatch.setattr("hyperllamad.store.library.Request", hasty)

    @asynccontextmanager
    async def opened(*models: ModelTable, **environ: str) -> AsyncIterator[Store]:
        config = config_of(tmp_path, *models)
        names = shortnames.read(Path(__file__).parents[2] / "etc" / "hyperllama" / "catalog.toml")
        library = Library(config, names, environ=environ_of(hub, tmp_path, **environ))
        async with anyio.create_task_group() as tasks:
            await tasks.start(library.run)
            yield Store(library, config)
            tasks.cancel_scope.cancel()

    return opened


async def wait_until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


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
        assert [step for step in await store.pull() if step.digest] == list(layers.values())
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


# -- interruptions -----------------------------------------------------------------------------------------------------


async def test_a_cut_connection_goes_on_where_it_was(hub: Hub, opened: Open) -> None:
    content = big_gguf()
    hub.put("org/repo", {"m.gguf": content})
    for after in (MIB, 2 * MIB, 1000):
        hub.fail("m.gguf", cut_after=after)
    async with opened() as store:
        await store.pull()
        assert store.listed() == ["hf.co/org/repo:latest"]
    begins = hub.ranges["m.gguf"]
    assert begins[0] == 0
    assert begins == sorted(begins)
    assert begins[1] > MIB - hub_module.PIECE * 5
    assert hub.served["m.gguf"] < len(content) + MIB


async def test_a_cut_that_stays(hub: Hub, opened: Open) -> None:
    content = big_gguf()
    hub.put("org/repo", {"m.gguf": content})
    hub.fail("m.gguf", cut_after=2 * MIB)
    hub.fail("m.gguf", status=503, times=99)
    async with opened() as store:
        with pytest.raises(PullFailedError, match=r"has a fault of its own \(503\)"):
            await store.pull()
        kept = store.kept()
        assert 2 * MIB - 5 * hub_module.PIECE < kept <= 2 * MIB
        assert store.listed() == []
        hub.faults.clear()
        hub.served.clear()
        steps = await store.pull()
        assert next(step.completed for step in steps if step.digest) >= kept
        assert (hub.ranges["m.gguf"][-1], hub.served["m.gguf"]) == (kept, len(content) - kept)


async def test_a_stall(hub: Hub, opened: Open) -> None:
    content = big_gguf()
    hub.put("org/repo", {"m.gguf": content})
    hub.fail("m.gguf", stall_after=3 * MIB)
    async with opened() as store:
        await store.pull()
        assert store.listed() == ["hf.co/org/repo:latest"]
    assert hub.ranges["m.gguf"][-1] > 2 * MIB


def _request(hub: Hub, target: Path, **more: Any) -> bytes:
    return (
        msgspec.json.encode(
            Request(name="m", repository="org/repo", target=str(target), store=str(target.parent), **more)
        )
        + b"\n"
    )


def test_kill_at_ten_points(hub: Hub, tmp_path: Path) -> None:
    """Nothing that was kept is fetched again, and in the end the model is whole."""
    content = big_gguf(12)
    hub.put("org/repo", {"m.gguf": content})
    target = tmp_path / "models" / "m@latest"
    points = sorted(random.Random(4).sample(range(1, len(content) - MIB, 4096), 10))
    argv, environ = (sys.executable, "-m", "hyperllamad.store.fetching"), environ_of(hub, tmp_path)
    kept, killed, grown = 0, 0, 0
    for number, point in enumerate(points):
        pieces = max(0, point - kept) // hub_module.PIECE + 5
        gate = hub.gates["m.gguf"] = Semaphore(pieces)
        # Every other one is killed as soon as the hub has sent all it may, the others when they have written it down.
        least = kept + (pieces * hub_module.PIECE // CHUNK * CHUNK if number % 2 else 0)
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environ) as child:
            assert child.stdin is not None
            child.stdin.write(_request(hub, target))
            child.stdin.flush()
            end = time.monotonic() + 30
            while len(hub.ranges.get("m.gguf", ())) <= number or gate._value or _kept(target) < least:
                assert time.monotonic() < end
                time.sleep(0.002)
            child.send_signal(signal.SIGKILL)
        killed += child.returncode == -signal.SIGKILL
        assert not target.exists()
        assert hub.ranges["m.gguf"][number] == kept
        assert _kept(target) >= kept
        grown += _kept(target) > kept
        kept = _kept(target)
    assert killed == 10
    assert grown >= 5
    hub.gates.clear()
    hub.served.clear()
    done = subprocess.run(argv, input=None, stdin=_pipe(_request(hub, target)), stdout=subprocess.PIPE, env=environ)
    assert b'"type":"placed"' in done.stdout
    assert hub.ranges["m.gguf"][-1] == kept
    assert hub.served["m.gguf"] == len(content) - kept
    assert (target / "m.gguf").read_bytes() == content


def _kept(target: Path) -> int:
    incoming = target.with_name(f".{target.name}.partial") / fetching.INCOMING
    return sum(path.stat().st_size for path in incoming.iterdir()) if incoming.exists() else 0


def _pipe(content: bytes) -> int:
    """A pipe that holds `content` and stays open, as a living parent's does."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.set_inheritable(writer, False)
    _OPEN.append(writer)
    return reader


_OPEN: list[int] = []


def test_the_child_ends_with_its_parent(hub: Hub, tmp_path: Path) -> None:
    hub.put("org/repo", {"m.gguf": big_gguf()})
    hub.gates["m.gguf"] = Semaphore(10)
    argv = (sys.executable, "-m", "hyperllamad.store.fetching")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ_of(hub, tmp_path)) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(_request(hub, tmp_path / "m"))
        child.stdin.flush()
        assert b"plan" in child.stdout.readline()
        child.stdin.close()
        assert child.wait(10) == 1


# -- many watchers -----------------------------------------------------------------------------------------------------


async def test_twenty_watchers_one_download(hub: Hub, opened: Open) -> None:
    content = big_gguf()
    hub.put("org/repo", {"m.gguf": content, "LICENSE": b"free"})
    gate = hub.gates["m.gguf"] = Semaphore(0)
    seen: list[list[Step]] = [[] for _ in range(20)]
    cancelled = 0
    async with opened() as store, anyio.create_task_group() as tasks:

        async def watch(number: int, scope: anyio.CancelScope) -> None:
            nonlocal cancelled
            with scope, await store.library.pull(NAME) as watch:
                async for step in watch:
                    seen[number].append(step)
            cancelled += scope.cancelled_caught

        scopes = [anyio.CancelScope() for _ in range(20)]
        for number, scope in enumerate(scopes):
            tasks.start_soon(watch, number, scope)
        gate.release(10)
        await wait_until(lambda: all(len(steps) > 1 for steps in seen))
        for count in range(10, 20):
            before = len(seen[0])
            scopes[count].cancel()
            gate.release(5)
            await wait_until(lambda before=before: len(seen[0]) > before)
        for scope in scopes[1:]:
            scope.cancel()
        gate.release(1000)
        await wait_until(lambda: bool(seen[0]) and seen[0][-1].status == "success")
        assert store.listed() == ["hf.co/org/repo:latest"]
    assert cancelled == 19
    assert hub.ranges == {"m.gguf": [0], "LICENSE": [0]}
    assert hub.served["m.gguf"] == len(content)
    assert all(steps[0].status == "pulling manifest" and steps[1].digest for steps in seen)


async def test_the_last_to_leave_ends_it(hub: Hub, opened: Open) -> None:
    content = big_gguf()
    hub.put("org/repo", {"m.gguf": content})
    gate = hub.gates["m.gguf"] = Semaphore(40)
    async with opened() as store:
        first, second = await store.library.pull(NAME), await store.library.pull(NAME)
        first.leave()
        first.leave()
        async for step in second:
            if step.completed > 0:
                break
        await wait_until(lambda: store.kept() >= 2 * MIB)
        second.leave()
        kept = 0

        async def release() -> None:
            nonlocal kept
            await wait_until(lambda: len(hub.ranges["m.gguf"]) == 2)
            kept = store.kept()
            gate.release(1000)

        # Who comes at once goes on with what there is.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(release)
            assert (await store.pull())[-1].status == "success"
        assert hub.ranges["m.gguf"] == [0, kept]
        assert kept >= 2 * MIB


async def test_at_the_end_of_the_daemon(hub: Hub, opened: Open) -> None:
    hub.put("org/repo", {"m.gguf": big_gguf()})
    hub.gates["m.gguf"] = Semaphore(5)
    async with opened() as store:
        watch = await store.library.pull(NAME)
        steps = aiter(watch)
        await anext(steps)
    with pytest.raises(PullFailedError, match="cut off"):
        async for _ in steps:
            pass
    watch.leave()
    with pytest.raises(ClosingError):
        await store.library.pull(NAME)


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "fault", "error", "words"),
    [
        ("api", {"status": 401}, PullFailedError, "does not accept the token"),
        ("api", {"status": 401, "error_code": "RepoNotFound"}, RepositoryNotFoundError, "no repository org/repo"),
        ("api", {"status": 403}, PullFailedError, "refuses access to org/repo"),
        ("api", {"status": 403, "error_code": "GatedRepo"}, PullFailedError, "org/repo is gated.*accept them at http"),
        ("api", {"status": 404}, RepositoryNotFoundError, "org/repo"),
        ("api", {"status": 404, "error_code": "RevisionNotFound"}, RepositoryNotFoundError, "does not exist"),
        ("api", {"status": 429}, PullFailedError, "too many requests"),
        ("api", {"status": 500}, PullFailedError, r"has a fault of its own \(500\)"),
        ("m.gguf", {"status": 403}, PullFailedError, "refuses access to org/repo/m.gguf"),
        ("m.gguf", {"status": 404}, RepositoryNotFoundError, "m.gguf does not exist"),
        ("m.gguf", {"status": 500}, PullFailedError, r"\(500\)"),
        ("m.gguf", {"corrupt": True}, PullFailedError, "digest mismatch, file must be downloaded again: want sha256:"),
        ("m.gguf", {"short": 50}, PullFailedError, "m.gguf came with"),
        ("LICENSE", {"corrupt": True}, PullFailedError, "digest mismatch"),
    ],
)
async def test_faults(  # noqa: PLR0917  # each is named by the table above
    hub: Hub, opened: Open, where: str, fault: dict[str, Any], error: type[HyperLlamaError], words: str
) -> None:
    hub.put("org/repo", {"m.gguf": small_gguf(), "LICENSE": b"free"})
    hub.fail(where, **fault, times=99)
    async with opened(HF_TOKEN="hf_verysecret") as store:
        with pytest.raises(error, match=words) as failure:
            await store.pull()
        assert failure.value.hint
        assert "secret" not in str(failure.value)
        assert store.listed() == []
        if where != "api":
            hub.faults.clear()
            await store.pull()
            assert store.listed() == ["hf.co/org/repo:latest"]


async def test_a_fault_does_not_wait_for_other_files(hub: Hub, opened: Open, tmp_path: Path) -> None:
    hub.put("org/repo", directory(tmp_path) | {"config.json": b"{" + b" " * 600 + b"}"})
    hub.gates["config.json"] = Semaphore(0)
    hub.fail("LICENSE", corrupt=True, times=99)
    async with opened() as store:
        with anyio.fail_after(20), pytest.raises(PullFailedError, match="org/repo/LICENSE"):
            await store.pull()


async def test_where_no_hub_is(hub: Hub, opened: Open) -> None:
    hub.put("org/repo", {"m.gguf": small_gguf()})
    for environ, words in (
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}, "cannot be reached|the proxy could not be used"),
    ):
        async with opened(**environ) as store:
            with pytest.raises(PullFailedError, match=words):
                await store.pull()


async def test_tokens(hub: Hub, opened: Open, tmp_path: Path) -> None:
    hub.put("org/repo", {"m.gguf": small_gguf()})
    hub.token = "hf_verysecret"
    (tmp_path / "hf_token").write_text("hf_verysecret\n")
    async with opened() as store:
        with pytest.raises(RepositoryNotFoundError):
            await store.pull()
    async with opened(CREDENTIALS_DIRECTORY=str(tmp_path)) as store:
        await store.pull()
        await store.library.delete(NAME)
    async with opened(HF_TOKEN="hf_verysecret") as store:
        await store.pull()


async def test_too_little_room(hub: Hub, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the first byte."""
    hub.put("org/repo", {"m.gguf": big_gguf()})
    request = pull.Request
    monkeypatch.setattr("hyperllamad.store.library.Request", lambda **fields: request(**{**fields, "reserve": 1 << 60}))
    async with opened() as store:
        with pytest.raises(DiskFullError, match=r"hf.co/org/repo:latest needs 1152921.5 TB, but .* are free in /"):
            await store.pull()
    assert hub.served["m.gguf"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
async def test_a_disk_that_fills_up(hub: Hub, opened: Open, tmp_path: Path) -> None:
    models = tmp_path / "state" / "models"
    models.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(models)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        content = big_gguf()
        hub.put("org/repo", {"m.gguf": content})
        gate = hub.gates["m.gguf"] = Semaphore(8)
        async with opened() as store, anyio.create_task_group() as tasks:

            async def fill() -> None:
                await wait_until(lambda: store.kept() > 0)
                (models / "other").write_bytes(bytes(3 * MIB))
                gate.release(1000)

            tasks.start_soon(fill)
            with pytest.raises(DiskFullError, match="the disk is full"):
                await store.pull()
            assert store.listed() == []
            kept = store.kept()
            (models / "other").unlink()
            await store.pull()
            assert store.listed() == ["hf.co/org/repo:latest"]
            assert hub.ranges["m.gguf"][-1] == kept > 0
    finally:
        subprocess.run(["umount", "-l", str(models)], check=True)


def test_the_daemon_never_loads_the_client() -> None:
    code = "import sys, hyperllamad.store.library; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os._exit(3)", "did not finish: it exited with 3"),
        ("import os; os.kill(os.getpid(), 9)", "did not finish: it was ended by signal 9"),
        ("print('noise', flush=True)", "said something that makes no sense"),
    ],
)
async def test_a_child_that_goes_wrong(opened: Open, tmp_path: Path, code: str, words: str) -> None:
    """In place of the child another program runs: the same interpreter with another module of that name."""
    package = tmp_path / "hyperllamad" / "store"
    package.mkdir(parents=True)
    for path in (package.parent / "__init__.py", package / "__init__.py"):
        path.write_text("")
    (package / "fetching.py").write_text(code)
    async with opened(PYTHONPATH=str(tmp_path), PYTHONSAFEPATH="1") as store:
        with pytest.raises(PullFailedError, match=words):
            await store.pull()
