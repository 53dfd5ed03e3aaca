"""What the commands that only look tell, over fake rooms and a real socket."""

from __future__ import annotations

import os

import pytest

from hyperllamactl import __version__
from hyperllamactl.protocol.base import Command
from hyperllamactl.protocol.daemon import Status
from hyperllamactl.protocol.engines import EngineInstall, EngineRemove
from hyperllamactl.protocol.instances import InstanceRow, Load, Logs, Ps, Unload
from hyperllamactl.protocol.store import BrokenModel, List, Show
from hyperllamad.core.instance import State
from tests.control.conftest import QWEN, SMOL, Door
from tests.control.fakes import make_home

NAME = "smollm2:135m"


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
    assert "9.0 GiB of GPU 1 has not come back since gone:latest ended" in report.gpu_problems
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
