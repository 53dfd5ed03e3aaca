"""The commands about engines: list, install, remove."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import pytest

from hyperllamactl.protocol.base import Done, Failed, Progress
from hyperllamactl.protocol.engines import EngineInstall, EngineList, EngineRemove
from hyperllamad.control import engines, reporting
from hyperllamad.core.errors import InstallFailedError
from hyperllamad.core.instance import State
from hyperllamad.engines import compiled
from hyperllamad.engines.homes import Homes
from hyperllamad.packages import Progress as Step
from tests.control.conftest import SMOL, Door
from tests.control.fakes import make_home


async def test_engine_list_has_every_home_and_every_engine(door: Door) -> None:
    make_home(door.engines, "vllm-1-cpu", installed_at=5)
    make_home(door.engines, "vllm-2-cpu", installed_at=9)
    rows = (await door.call(EngineList())).last.engines
    assert [(row.name, row.id, row.version, row.installed, row.in_use) for row in rows] == [
        ("llama_cpp", "", "", False, False),
        ("vllm", "vllm-2-cpu", "2", True, True),
        ("vllm", "vllm-1-cpu", "1", True, False),
        ("max", "", "", False, False),
    ]
    assert all(row.title and row.variants for row in rows)


class FakeInstall:
    """Takes the place of engines.install.install."""

    def __init__(self) -> None:
        self.wishes: list[dict[str, Any]] = []
        self.end = anyio.Event()
        self.cancelled = anyio.Event()
        self.error: InstallFailedError | None = None

    async def __call__(self, engine: Any, *, homes: Any, on_progress: Any, **wish: Any) -> Any:
        self.wishes.append({"engine": engine.name, **wish})
        on_progress(Step("creating"))
        on_progress(Step("downloading", "torch", 1, 4))
        try:
            await self.end.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        if self.error:
            raise self.error
        return make_home(homes.root, f"{engine.name}-{wish['version']}-cpu")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, door: Door) -> FakeInstall:
    fake = FakeInstall()
    monkeypatch.setattr(engines.installer, "install", fake)
    monkeypatch.setattr(reporting, "HEARTBEAT", math.inf)
    return fake


async def test_engine_install_tells_where_it_stands_and_what_is_used(door: Door, install: FakeInstall) -> None:
    async with door.stream(EngineInstall(name="vllm", version="3")) as next_line:
        line: Any = await next_line()
        while line.phase != "downloading":
            line = await next_line()
        assert isinstance(line, Progress)
        assert (line.detail, line.done, line.total) == ("torch", 1, 4)
        install.end.set()
        last = await next_line()
    assert last.message == "vLLM 3 (cpu) is installed; new instances run in it"
    wish = install.wishes[0]
    assert (wish["engine"], wish["version"], wish["variant"]) == ("vllm", "3", "")
    assert wish["table"] == door.rooms.config.engine_table("vllm")


async def test_an_install_that_fails_says_why(door: Door, install: FakeInstall) -> None:
    install.error = InstallFailedError("the disk is full", hint="make room")
    install.end.set()
    answer = await door.call(EngineInstall(name="vllm", version="3"))
    assert answer.last == Failed(code="install_failed", message="the disk is full", hint="make room")


async def test_who_hangs_up_cancels_the_install(door: Door, install: FakeInstall) -> None:
    async with door.stream(EngineInstall(name="vllm", version="3")) as next_line:
        await next_line()
    with anyio.fail_after(5):
        await install.cancelled.wait()


async def test_engine_remove_takes_the_only_home(door: Door) -> None:
    make_home(door.engines, "vllm-1-cpu")
    answer = await door.call(EngineRemove(name="vllm"))
    assert answer.last == Done(message="vllm-1-cpu is removed")
    assert not (door.engines / "vllm-1-cpu").exists()


async def test_what_a_removed_engine_compiled_goes_with_it(door: Door) -> None:
    make_home(door.engines, "vllm-2-cpu")
    state = door.rooms.config.paths.state
    for home in ("vllm-2-cpu", "vllm-3-cpu"):
        (compiled.of(state, home) / "torch").mkdir(parents=True)
    assert isinstance((await door.call(EngineRemove(name="vllm"))).last, Done)
    assert [path.name for path in (state / "compiled").iterdir()] == ["vllm-3-cpu"]
    assert door.supervisor.left == ["vllm-2-cpu"]


@pytest.mark.parametrize(("state", "pid"), [(State.READY, 7), (State.STARTING, 0), (State.BACKOFF, 0)])
async def test_engine_remove_refuses_while_something_runs_in_it(door: Door, state: State, pid: int) -> None:
    make_home(door.engines, "llama_cpp-1-cpu")
    door.supervisor.show(SMOL, state, pid=pid)
    answer = await door.call(EngineRemove(name="llama_cpp", force=True))
    assert (answer.last.code, answer.last.hint) == ("in_use", "unload first: smollm2:135m")
    assert (door.engines / "llama_cpp-1-cpu" / "home.json").exists()
    door.supervisor.show(SMOL, State.FAILED, pid=0)
    assert isinstance((await door.call(EngineRemove(name="llama_cpp"))).last, Done)


async def test_what_starts_in_a_home_while_it_is_being_removed_keeps_it(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_home(door.engines, "llama_cpp-1-cpu")
    hide = Homes._hide

    def late(homes: Homes, *arguments: Any) -> None:  # in the removing thread, after the first look
        anyio.from_thread.run_sync(partial(door.supervisor.show, SMOL, State.STARTING, pid=0))
        hide(homes, *arguments)

    monkeypatch.setattr(Homes, "_hide", late)
    answer = await door.call(EngineRemove(name="llama_cpp"))
    assert (answer.last.code, answer.last.hint) == ("in_use", "unload first: smollm2:135m")
    assert door.rooms.homes.current("llama_cpp") is not None
    assert door.supervisor.left == []


async def test_engine_remove_of_one_of_several(door: Door) -> None:
    make_home(door.engines, "vllm-1-cpu", installed_at=5)
    make_home(door.engines, "vllm-2-cpu", installed_at=9)
    both = await door.call(EngineRemove(name="vllm"))
    assert (both.last.code, both.last.hint) == ("bad_request", "say which: --version, --variant")
    none = await door.call(EngineRemove(name="vllm", version="3"))
    assert (none.last.code, none.last.hint) == ("not_installed", "there are: vllm-2-cpu, vllm-1-cpu")
    used = await door.call(EngineRemove(name="vllm", version="2"))
    assert used.last.code == "in_use"
    assert "new instances run in" in used.last.message
    forced = await door.call(EngineRemove(name="vllm", version="2", force=True))
    assert forced.last == Done(message="vllm-2-cpu is removed")
    current = door.rooms.homes.current("vllm")
    assert current is not None
    assert current.id == "vllm-1-cpu"
