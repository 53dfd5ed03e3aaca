"""pull, create, rm, cp and gc: over a real store on a disk and a hub on a loopback port."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from threading import Semaphore

import pytest
from msgspec.structs import replace

from hyperllamactl.protocol.base import Caution, Command, Done, Failed, Progress
from hyperllamactl.protocol.store import Collected, CollectGarbage, Copy, Create, Pull, Remove, Turn
from hyperllamad.store import layout, shortnames
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.inspect import inspect
from tests.control.conftest import Door
from tests.store import hub as hub_module
from tests.store.files import sharded_directory, small_directory, small_gguf
from tests.store.hub import Hub
from tests.store.lora import lora_gguf

NAME = "hf.co/org/repo"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_module.serve() as hub:
        hub.put("org/repo", {"x-Q4_0.gguf": small_gguf()})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


def models(door: Door) -> list[str]:
    """The directories of models and the variants' files."""
    paths = door.rooms.config.paths
    found = [*paths.models.glob("*/*/*.gguf"), *paths.models.glob("*/*/*/*.gguf"), *paths.state.glob("variants/*")]
    return sorted(path.name for path in found)


async def test_progress_by_file(door: Door, hub: Hub, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in sharded_directory(tmp_path / "source").iterdir()}
    hub.put("org/shards", files)
    hub.gates["model-00002-of-00003.safetensors"] = Semaphore(0)
    async with door.stream(Pull(model="hf.co/org/shards")) as next_line:
        while not (line := await next_line()).files or len(line.files) < 3:
            assert isinstance(line, Progress)
        names = {part.name for part in line.files}
        assert names < set(files)
        assert "model-00002-of-00003.safetensors" not in names  # nothing of it has come
        assert line.done == sum(part.done for part in line.files)
        hub.gates["model-00002-of-00003.safetensors"].release(100)
        while not isinstance(line, Done):
            line = await next_line()
            if isinstance(line, Progress) and line.files:
                last = line
    assert {part.name for part in last.files} == set(files)
    assert all(part.done == part.total == len(files[part.name]) for part in last.files)


async def test_the_choice_is_told(door: Door, hub: Hub) -> None:
    entry = shortnames.Entry(
        name="tiny:1b",
        checked=date(2026, 11, 25),
        source="here",
        weights={"fp8": "org/none"},
        gguf="org/repo",
        parameters=1_000_000_000,
    )
    door.rooms.library.names = shortnames.ShortNames([entry])
    pulled = await door.call(Pull(model="tiny:1b"))
    assert pulled.last == Done(message="tiny:1b is here")
    first = pulled.lines[0]
    assert isinstance(first, Progress)
    assert (first.phase, first.detail[:21]) == ("choosing", "tiny:1b-gguf (org/rep")
    assert not [line for line in pulled.lines[1:] if isinstance(line, Progress) and "choosing" in line.phase]
    door.rooms.library.names = shortnames.ShortNames([replace(entry, name="big:1b", gguf="")])
    cautious = await door.call(Pull(model="big:1b"))
    assert [line.message for line in cautious.lines if isinstance(line, Caution)] == [
        "big:1b will not run here as things are: big:1b-fp8: fp8 needs a GPU"
    ]


async def test_create_from_a_file_of_this_machine(door: Door, tmp_path: Path) -> None:
    source = tmp_path / "elsewhere" / "x.gguf"
    source.parent.mkdir()
    source.write_bytes(small_gguf())
    turn = Turn(role="user", content="Hi")
    command = Create(model="mine", path=str(source), system="Be brief.", messages=[turn])
    assert (await door.call(command)).last == Done(message="mine:latest is here")
    catalog = Catalog(door.rooms.config.paths, door.rooms.config.models, ())
    made = catalog.resolve("mine")
    assert (made.system, made.messages) == ("Be brief.", (("user", "Hi"),))
    link = Path(made.path)
    assert link.is_symlink()
    assert link.readlink() == source
    assert isinstance((await door.call(Remove(model="mine"))).last, Done)
    assert source.read_bytes() == small_gguf()
    assert catalog.list() == ()


async def test_create_from_a_directory_of_this_machine(door: Door, tmp_path: Path) -> None:
    source = small_directory(tmp_path / "elsewhere", tokenizer_config={"chat_template": "x"})
    assert isinstance((await door.call(Create(model="mine:hf", path=str(source)))).last, Done)
    catalog = Catalog(door.rooms.config.paths, door.rooms.config.models, ())
    made = catalog.resolve("mine:hf")
    assert (made.format, made.chat_template) == ("safetensors", "x")
    assert made.digest == inspect(made.name, layout.locate(source)).digest


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (Create(model="m", path="x.gguf"), "x.gguf is not an absolute path"),
        (Create(model="m", path="/nowhere/x.gguf"), "/nowhere/x.gguf does not exist"),
        (Create(model="m", path="/proc/version"), "/proc/version"),
        (Create(model="m"), "neither 'from' or 'files' was specified"),
        (Create(model="m", path="/proc/version", adapters=["/a"]), "/proc/version"),
    ],
)
async def test_what_cannot_be_created(door: Door, command: Command, words: str) -> None:
    failed = (await door.call(command)).last
    assert isinstance(failed, Failed)
    assert words in failed.message
    assert not list(door.rooms.config.paths.models.rglob("*"))


async def test_an_adapter_that_does_not_fit_leaves_no_model(door: Door, tmp_path: Path) -> None:
    source, adapter = tmp_path / "x.gguf", tmp_path / "lora.gguf"
    source.write_bytes(small_gguf())
    adapter.write_bytes(lora_gguf(general__architecture="qwen2"))
    command = Create(model="m", path=str(source), adapters=[str(adapter)])
    failed = (await door.call(command)).last
    assert isinstance(failed, Failed)
    assert f"{adapter} is an adapter for models of architecture qwen2" in failed.message
    assert not list(door.rooms.config.paths.models.rglob("*"))
    adapter.write_bytes(lora_gguf())
    assert (await door.call(command)).last == Done(message="m:latest is here")
    made = Catalog(door.rooms.config.paths, door.rooms.config.models, ()).resolve("m")
    assert made.adapters == (str(adapter),)


async def test_gc(door: Door) -> None:
    models = door.rooms.config.paths.models
    leftover = models / ".old.deleted"
    leftover.mkdir(parents=True)
    (leftover / "weights").write_bytes(bytes(1000))
    told = (await door.call(CollectGarbage(dry_run=True))).last
    assert isinstance(told, Collected)
    assert [(item.path, item.size) for item in told.items] == [(str(leftover), 1000)]
    assert (told.freed, told.dry_run, leftover.exists()) == (1000, True, True)
    done = (await door.call(CollectGarbage())).last
    assert (done.freed, done.dry_run, leftover.exists()) == (1000, False, False)
    assert (await door.call(CollectGarbage())).last == Collected(items=[], freed=0)


async def test_a_model_comes_gets_a_second_name_and_goes(door: Door, hub: Hub) -> None:
    pulled = await door.call(Pull(model=NAME))
    assert pulled.last == Done(message=f"{NAME}:latest is here")
    phases = [line.phase for line in pulled.lines if isinstance(line, Progress)]
    assert phases
    assert models(door) == ["x-Q4_0.gguf"]
    copied = await door.call(Copy(source=NAME, destination="mine"))
    assert copied.last == Done(message=f"mine:latest is a second name of {NAME}:latest")
    assert models(door) == ["mine@latest.toml", "x-Q4_0.gguf"]
    for name in ("mine", NAME):
        removed = await door.call(Remove(model=name))
        assert isinstance(removed.last, Done)
    assert models(door) == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Pull(model="hf.co/org/none"), "repository_not_found"),
        (Pull(model="nosuch"), "unknown_short_name"),
        (Pull(model="bad name"), "invalid_name"),
        (Remove(model="nosuch"), "model_not_found"),
        (Copy(source="nosuch", destination="n"), "model_not_found"),
    ],
)
async def test_what_cannot_be_done(command: Command, code: str, door: Door, hub: Hub) -> None:
    failed = (await door.call(command)).last
    assert isinstance(failed, Failed)
    assert failed.code == code
