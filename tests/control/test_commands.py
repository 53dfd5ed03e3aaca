"""What each command tells and does, over fake rooms and a real socket."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from hyperllamactl import __version__
from hyperllamactl.protocol.base import Command, Done, Failed, Progress
from hyperllamactl.protocol.daemon import Status
from hyperllamactl.protocol.engines import EngineInstall, EngineList, EngineRemove
from hyperllamactl.protocol.instances import Change, InstanceRow, Load, LogLine, Logs, Ps, Unload, Warm, Watch
from hyperllamactl.protocol.store import BrokenModel, List, Show
from hyperllamad.control import engines, reporting
from hyperllamad.core.errors import ClosingError, InstallFailedError, LoadFailedError
from hyperllamad.core.instance import State
from hyperllamad.packages import Progress as Step
from hyperllamad.supervision.logs import Ring
from tests.control.conftest import QWEN, SMOL, Answer, Door
from tests.control.fakes import make_home

NAME = "smollm2:135m"


class Later:
    """The answer to a call that is running."""

    def __init__(self, door: Door, command: Command, tasks: anyio.abc.TaskGroup) -> None:
        self.done = anyio.Event()
        self.answer: Answer | None = None
        tasks.start_soon(self._run, door, command)

    async def _run(self, door: Door, command: Command) -> None:
        self.answer = await door.call(command)
        self.done.set()

    async def wait(self) -> Answer:
        await self.done.wait()
        assert self.answer is not None
        return self.answer


# -- answered at once --------------------------------------------------------------------------------------------------


async def test_ps(door: Door) -> None:
    door.supervisor.show(SMOL, State.READY, running=2, waiting=1, restarts=3, until=None)
    door.supervisor.show(QWEN, State.FAILED, cause="too big", pid=0, size=0)
    first, second = (await door.call(Ps())).last.instances
    assert first == InstanceRow(
        name=NAME,
        id="ab" * 6,
        engine="llama_cpp",
        state="ready",
        size=250_000_000,
        processor="100% CPU",
        context=4096,
        parallel=4,
        running=2,
        waiting=1,
        restarts=3,
        since=2000.0,
        until=None,
        pid=42,
    )
    assert (second.state, second.cause, second.until) == ("failed", "too big", None)


async def test_status(door: Door) -> None:
    make_home(door.engines, "vllm-2-cpu")
    door.supervisor.show(SMOL, State.READY, running=2, waiting=1)
    door.supervisor.show(QWEN, State.STARTING, waiting=3)
    report = (await door.call(Status())).last
    assert (report.version, report.pid, report.started_at) == (__version__, os.getpid(), 1.0)
    assert (report.url, report.config) == ("http://127.0.0.1:11434", str(door.rooms.config.paths.config))
    assert (report.engines, report.models, report.requests, report.waiting) == (["vllm-2-cpu"], 2, 2, 4)
    assert report.memory > 10_000_000
    assert report.prepared == {"vllm-0.33.0-cuda": 812_000_000}
    assert [row.name for row in report.instances] == [NAME, "qwen3:8b"]


async def test_list_tells_the_engine_or_why_there_is_none(door: Door) -> None:
    door.supervisor.refused.add(QWEN.digest)
    reply = (await door.call(List())).last
    first, second = reply.models
    assert (first.name, first.id, first.engine, first.problem) == (NAME, "ab" * 6, "llama_cpp", "")
    assert (first.size, first.format, first.parameter_size) == (91_000_000, "gguf", "134.52M")
    assert (second.engine, second.problem) == ("", "no engine reads it (install one)")
    assert reply.broken == [BrokenModel(name="broken:latest", path="/models/broken", problem="the file is empty")]


async def test_show(door: Door) -> None:
    details = (await door.call(Show(model="SmolLM2:135M"))).last
    assert details.model.name == NAME
    assert (details.path, details.architecture) == ("/models/smollm2:135m", "llama")
    assert (details.context_length, details.embedding_length) == (8192, 576)
    assert details.capabilities == ["completion", "tools"]
    assert (details.system, details.parameters, details.license) == ("Be brief.", {"temperature": 0.2}, "Apache-2.0")


@pytest.mark.parametrize(
    ("command", "status", "code"),
    [
        (Show(model="nope"), 404, "model_not_found"),
        (Show(model="a:b:c/"), 400, "invalid_name"),
        (Load(model="nope"), 200, "model_not_found"),
        (Load(model=NAME, keep_alive="soon"), 200, "bad_request"),
        (Unload(model="nope"), 200, "model_not_found"),
        (Unload(model=NAME), 200, "not_loaded"),
        (Logs(model="nope"), 200, "model_not_found"),
        (Logs(model=NAME), 200, "not_loaded"),
        (EngineInstall(name="gpt4all"), 200, "bad_request"),
        (EngineRemove(name="gpt4all"), 200, "bad_request"),
        (EngineRemove(name="vllm"), 200, "not_installed"),
    ],
)
async def test_what_cannot_be_done(command: Command, status: int, code: str, door: Door) -> None:
    answer = await door.call(command)
    assert (answer.status, len(answer.lines), answer.last.code) == (status, 1, code)
    assert door.supervisor.leases == []


# -- load --------------------------------------------------------------------------------------------------------------


async def test_load_tells_every_step_then_the_row(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "HEARTBEAT", math.inf)
    show = partial(door.supervisor.show, SMOL)
    async with door.stream(Load(model=NAME, keep_alive="10m")) as next_line:
        first = await next_line()
        assert (first.phase, first.detail) == ("waiting", "for another model to make room")
        for phase in ("starting", "weights", "warming"):
            show(State.STARTING, phase=phase)
            assert (await next_line()).phase == phase
        show(State.BACKOFF, cause="it crashed")
        crashed = await next_line()
        assert (crashed.phase, crashed.detail) == ("backoff", "it crashed")
        assert crashed.elapsed > 0
        show(State.READY)
        assert (await next_line()).phase == "ready"
        lease = door.supervisor.leases[0]
        assert not lease.released.is_set()
        lease.answer()
        last = await next_line()
    assert [(row.name, row.state) for row in last.instances] == [(NAME, "ready")]
    assert lease.keep_alive == 600
    assert lease.released.is_set()
    assert door.supervisor.retried == [NAME]


async def test_warm_loads_once_and_keeps_nothing(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "HEARTBEAT", math.inf)
    async with door.stream(Warm(model=NAME)) as next_line:
        assert (await next_line()).phase == "waiting"
        door.supervisor.show(SMOL, State.READY, phases={"starting": 5.5, "compiling": 21.04})
        assert (await next_line()).phase == "ready"
        (lease,) = door.supervisor.leases
        lease.answer()
        last = await next_line()
    assert last.message == f"{NAME} is warm: starting 5.5 s, compiling 21.0 s"
    assert (lease.keep_alive, lease.released.is_set()) == (0, True)


@pytest.mark.parametrize("state", [State.READY, State.ASLEEP, State.DRAINING])
async def test_what_is_loaded_is_warm(state: State, door: Door) -> None:
    door.supervisor.show(SMOL, state)
    answer = await door.call(Warm(model=NAME))
    assert answer.last.message == f"{NAME} is loaded, so its caches are warm"
    assert door.supervisor.leases == []


async def test_load_shows_life_while_nothing_moves(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "HEARTBEAT", 0.001)
    door.supervisor.show(SMOL, State.STARTING, phase="weights")
    async with door.stream(Load(model=NAME)) as next_line:
        beats = [await next_line() for _ in range(3)]
    assert [beat.phase for beat in beats] == ["weights"] * 3
    assert beats[0].elapsed < beats[1].elapsed < beats[2].elapsed


async def test_load_of_what_is_ready_is_the_row_alone_or_after_a_step(door: Door) -> None:
    door.supervisor.show(SMOL, State.READY)
    async with anyio.create_task_group() as tasks:
        later = Later(door, Load(model=NAME), tasks)
        await door.supervisor.leased.wait()
        door.supervisor.leases[0].answer()
        answer = await later.wait()
    assert answer.last.instances[0].state == "ready"


async def test_load_of_a_model_that_is_not_to_stay_still_shows_it(door: Door) -> None:
    door.supervisor.show(SMOL, State.READY)
    async with anyio.create_task_group() as tasks:
        later = Later(door, Load(model=NAME, keep_alive=0), tasks)
        await door.supervisor.leased.wait()
        lease = door.supervisor.leases[0]
        lease.release = lambda: door.supervisor.show(SMOL, State.GONE)  # type: ignore[method-assign]
        lease.answer()
        answer = await later.wait()
    assert answer.last.instances[0].state == "ready"
    assert lease.keep_alive == 0


@pytest.mark.parametrize("error", [LoadFailedError("no memory", hint="buy some"), ClosingError()])
async def test_a_load_that_fails_says_why_and_gives_back(error: Any, door: Door) -> None:
    async with anyio.create_task_group() as tasks:
        later = Later(door, Load(model=NAME), tasks)
        await door.supervisor.leased.wait()
        door.supervisor.leases[0].answer(error)
        answer = await later.wait()
    assert answer.last == Failed(code=error.code, message=error.message, hint=error.hint)
    assert door.supervisor.leases[0].released.is_set()


async def test_who_hangs_up_takes_back_the_wish_to_load(door: Door) -> None:
    async with door.stream(Load(model=NAME)) as next_line:
        await next_line()
        assert not door.supervisor.leases[0].released.is_set()
    with anyio.fail_after(5):
        await door.supervisor.leases[0].released.wait()


# -- unload ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [False, True])
async def test_unload_waits_until_it_is_gone(cut: bool, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "HEARTBEAT", math.inf)
    show = partial(door.supervisor.show, SMOL)
    show(State.READY, running=2)
    async with door.stream(Unload(model=NAME, now=cut)) as next_line:
        first = await next_line()
        assert (first.phase, first.detail) == ("ready", "2 requests to finish")
        assert door.supervisor.unloaded == [(NAME, cut)]
        show(State.DRAINING, running=1)
        assert (await next_line()).detail == "1 request to finish"
        door.supervisor.show(QWEN, State.GONE)  # somebody else
        await next_line()
        show(State.STOPPING)
        assert (await next_line()).phase == "stopping"
        show(State.GONE)
        assert await next_line() == Done(message="smollm2:135m is unloaded")


async def test_unload_means_the_instance_that_was_there_not_the_next_one(door: Door) -> None:
    door.supervisor.show(SMOL, State.DRAINING)
    async with anyio.create_task_group() as tasks:
        later = Later(door, Unload(model=NAME), tasks)
        await door.supervisor.unloading.wait()
        door.supervisor.show(SMOL, State.GONE)
        door.supervisor.show(SMOL, State.WAITING)  # a request that waited
        assert (await later.wait()).last == Done(message="smollm2:135m is unloaded")


async def test_unload_at_the_end_of_the_daemon_ends(door: Door) -> None:
    door.supervisor.show(SMOL, State.READY)
    async with anyio.create_task_group() as tasks:
        later = Later(door, Unload(model=NAME), tasks)
        await door.supervisor.unloading.wait()
        door.supervisor.close()
        assert (await later.wait()).last.code == "closing"


# -- logs and watch ----------------------------------------------------------------------------------------------------


@pytest.fixture
def ring(door: Door) -> Ring:
    ring = door.supervisor.rings[SMOL.name.key] = Ring()
    for number in range(5):
        ring.append(f"line {number}")
    return ring


@pytest.mark.usefixtures("ring")
@pytest.mark.parametrize(("lines", "first"), [(2, 3), (5, 0), (100, 0), (0, 5), (-1, 5)])
async def test_logs_are_the_last_lines(lines: int, first: int, door: Door) -> None:
    answer = await door.call(Logs(model=NAME, lines=lines))
    *told, last = answer.lines
    assert [line.text for line in told if isinstance(line, LogLine)] == [f"line {n}" for n in range(first, 5)]
    assert last == Done()


async def test_logs_are_followed_until_the_engine_ends(door: Door, ring: Ring) -> None:
    async with door.stream(Logs(model=NAME, lines=1, follow=True)) as next_line:
        assert (await next_line()).text == "line 4"
        ring.append("and another")
        assert (await next_line()).text == "and another"
        ring.end()
        assert await next_line() == Done(message="the engine has ended")


async def test_who_hangs_up_is_not_followed_for(door: Door, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    follow, left = ring.follow, anyio.Event()

    @contextmanager
    def noticed_follow() -> Iterator[Any]:
        try:
            with follow() as coming:
                yield coming
        finally:
            left.set()

    monkeypatch.setattr(ring, "follow", noticed_follow)
    async with door.stream(Logs(model=NAME, lines=1, follow=True)) as next_line:
        await next_line()
        assert not left.is_set()
    with anyio.fail_after(5):
        await left.wait()


async def test_watch_tells_every_change(door: Door) -> None:
    async with door.stream(Watch()) as next_line:
        door.supervisor.show(SMOL, State.STARTING, phase="weights")
        door.supervisor.show(SMOL, State.FAILED, cause="no memory")
        assert await next_line() == Change(at=5000.0, name=NAME, state="starting", phase="weights")
        assert await next_line() == Change(at=5000.0, name=NAME, state="failed", detail="no memory")
        door.supervisor.close()
        assert isinstance(await next_line(), Done)


# -- engines -----------------------------------------------------------------------------------------------------------


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
    compiled = door.rooms.config.paths.cache / "engines"
    for home in ("vllm-2-cpu", "vllm-3-cpu"):
        (compiled / home / "torch").mkdir(parents=True)
    assert isinstance((await door.call(EngineRemove(name="vllm"))).last, Done)
    assert [path.name for path in compiled.iterdir()] == ["vllm-3-cpu"]
    assert door.supervisor.left == ["vllm-2-cpu"]


async def test_engine_remove_refuses_while_something_runs_in_it(door: Door) -> None:
    make_home(door.engines, "llama_cpp-1-cpu")
    door.supervisor.show(SMOL, State.READY)
    answer = await door.call(EngineRemove(name="llama_cpp", force=True))
    assert (answer.last.code, answer.last.hint) == ("in_use", "unload first: smollm2:135m")
    assert (door.engines / "llama_cpp-1-cpu" / "home.json").exists()
    door.supervisor.show(SMOL, State.FAILED, pid=0)
    assert isinstance((await door.call(EngineRemove(name="llama_cpp"))).last, Done)


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
