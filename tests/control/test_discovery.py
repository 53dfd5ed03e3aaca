"""info and recommend, and the word of caution before a load, over a machine that is described here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio

from hyperllamactl.protocol.base import Caution, Failed, Reply
from hyperllamactl.protocol.instances import Load
from hyperllamactl.protocol.machine import Info, MachineReport, Recommend, Recommendations
from hyperllamad.core.instance import State
from hyperllamad.core.machine import Capability, Gpu, Gpus, Machine
from hyperllamad.store import shortnames
from tests.control.conftest import GIB, MACHINE, SMOL, Door
from tests.control.fakes import make_home

CATALOG = shortnames.read(Path(__file__).parents[2] / "etc/hyperllama/catalog.toml")
L4 = Gpu(0, "GPU-1", "NVIDIA L4", Capability(8, 9), 24 * GIB, 16 * GIB, 8 * GIB, bandwidth=300_000_000_000, ours=GIB)
WITH_GPU = replace(MACHINE, gpus=Gpus((L4,), "580.1", "13.0"))


def on(door: Door, machine: Machine) -> None:
    """The door's daemon runs on that machine, with the shipped catalogue."""

    async def look() -> Machine:
        return machine

    object.__setattr__(door.rooms, "machine", look)
    door.rooms.library.names = CATALOG


async def test_info(door: Door) -> None:
    make_home(door.engines, "llama_cpp-1-cpu")
    on(door, replace(WITH_GPU, features=frozenset({"avx2", "sse4_2"})))
    report = (await door.call(Info())).last
    assert isinstance(report, MachineReport)
    (gpu,) = report.gpus
    assert (gpu.name, gpu.capability, gpu.free, gpu.ours) == ("NVIDIA L4", "8.9", 16 * GIB, GIB)
    assert (report.driver, report.cuda, report.gpu_problem) == ("580.1", "13.0", "")
    assert (report.processor, report.cores, report.features) == ("A CPU", 4, ["avx2"])
    assert (report.memory, report.available) == (16 * GIB, 12 * GIB)
    assert [row.name for row in report.engines if row.installed] == ["llama_cpp"]


async def test_recommend_of_each_family_the_largest_that_is_pleasant(door: Door) -> None:
    make_home(door.engines, "llama_cpp-1-cpu")
    on(door, MACHINE)
    report = (await door.call(Recommend())).last
    assert isinstance(report, Recommendations)
    families = [row.model.partition(":")[0] for row in report.offers]
    assert len(families) == len(set(families)) > 15
    assert all(row.fits and row.kind == "gguf" for row in report.offers)
    assert not [row for row in report.offers if 0 < row.single < 5]
    assert sum(row.single > 0 for row in report.offers) > 10, "those that embed have no speed"
    assert "qwen3:4b" in {row.model for row in report.offers}  # 16 GB/s of weights: 8b would be under 5 a second
    everything = (await door.call(Recommend(every=True))).last
    assert len(everything.offers) == len(CATALOG.entries)
    assert any(not row.fits and "needs a GPU" in row.why for row in everything.offers)


async def test_recommend_one_model(door: Door) -> None:
    make_home(door.engines, "llama_cpp-1-cpu")
    make_home(door.engines, "vllm-1-cuda")
    on(door, WITH_GPU)
    report = (await door.call(Recommend(model="qwen3:8b"))).last
    assert [row.name for row in report.offers] == ["qwen3:8b-fp8", "qwen3:8b-awq", "qwen3:8b-gguf", "qwen3:8b-bf16"]
    first, last = report.offers[0], report.offers[-1]
    assert (first.repository, first.engine, first.device) == ("Qwen/Qwen3-8B-FP8", "vllm", "cuda")
    assert not last.fits
    assert last.why == "it needs about 18.8 GB, and 16.2 GB are free"


async def test_recommend_what_is_not_known(door: Door) -> None:
    on(door, MACHINE)
    for name, code in (("nosuch", "unknown_short_name"), ("hf.co/a/b", "bad_request"), ("a b", "invalid_name")):
        failed = (await door.call(Recommend(model=name))).last
        assert isinstance(failed, Failed)
        assert failed.code == code


async def load(door: Door) -> list[Reply]:
    """The lines of a load that succeeds."""
    lines: list[Reply] = []
    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            lines.extend((await door.call(Load(model="smollm2:135m"))).lines)

        tasks.start_soon(call)
        await door.supervisor.leased.wait()
        door.supervisor.show(SMOL, State.READY)
        door.supervisor.leases[0].answer()
    return lines


async def test_a_word_of_caution_before_a_load(door: Door) -> None:
    make_home(door.engines, "llama_cpp-1-cpu")
    on(door, Machine(memory=GIB, available=1 << 20))
    first = (await load(door))[0]
    assert isinstance(first, Caution)
    assert first.message.startswith("smollm2:135m will probably not load: it needs about ")
    assert first.message.endswith("are free once every other model has left (memory)")


async def test_no_word_where_it_fits(door: Door) -> None:
    make_home(door.engines, "llama_cpp-1-cpu")
    on(door, MACHINE)
    assert not [line for line in await load(door) if isinstance(line, Caution)]
