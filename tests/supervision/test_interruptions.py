"""GPUs under real children: one is lost and another takes over; none is left and the reason is told.  NVML is fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from hyperllamad.core.errors import NoGpuError
from hyperllamad.core.gpu_health import GpuNews
from hyperllamad.core.instance import State
from hyperllamad.supervision.gpu_watch import GpuWatch
from hyperllamad.supervision.gpus import GpuReader
from hyperllamad.supervision.meter import Meter
from hyperllamad.supervision.plan import Planner
from hyperllamad.supervision.supervisor import Supervisor
from tests.supervision import fake
from tests.supervision.fake_nvml import GIB, FakeGpu, FakeNvml

LOST = 15  # NVML's code


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


class Machine:
    def __init__(self, *gpus: FakeGpu) -> None:
        self.nvml = FakeNvml(*gpus)
        self.reader = GpuReader(self.nvml.load)
        self.watch = GpuWatch(self.reader, lambda: True, device=lambda: "cuda")


@asynccontextmanager
async def supervised(runtime: Path, machine: Machine, **more: Any) -> AsyncIterator[Supervisor]:
    meter = Meter(machine.reader, known=lambda: machine.watch.known)
    verdict = machine.watch.verdict
    async with fake.supervised(runtime, meter=meter, home=fake.ON_GPU, verdict=verdict, **more) as supervisor:

        def heard(news: GpuNews) -> None:
            if news.problem:
                supervisor.interruptions.lose(news.gpu.uuid, news.problem)

        machine.watch.on_news = heard
        yield supervisor


async def test_a_model_on_a_lost_gpu_is_loaded_on_the_other(runtime: Path) -> None:
    machine = Machine(FakeGpu(), FakeGpu())
    async with supervised(runtime, machine) as supervisor:
        model = fake.model(runtime, "m", size=4 * GIB)
        lease = supervisor.lease(model)
        upstream = await lease.granted()
        ((where,),) = [row.gpus for row in supervisor.rows()]
        machine.nvml.gpus[where].error = LOST
        await machine.watch.look()
        await upstream.died.wait()
        assert "fallen off the bus" in upstream.explain()
        assert not upstream.cut_on_purpose, "its answer may go on elsewhere"
        lease.release()
        again = supervisor.lease(model)
        await again.granted()
        assert [row.gpus for row in supervisor.rows()] == [(1 - where,)]
        again.release()


async def test_with_no_gpu_left_requests_are_told_why_and_served_once_it_is_back(runtime: Path) -> None:
    machine = Machine(FakeGpu())
    async with supervised(runtime, machine) as supervisor:
        model = fake.model(runtime, "m", size=4 * GIB)
        await supervisor.lease(model).granted()
        machine.nvml.gpus[0].error = LOST
        await machine.watch.look()
        await fake.wait_unloaded(supervisor)
        with pytest.raises(NoGpuError, match=r"'m:latest' runs on a GPU, and none can be used: GPU 0 \(NVIDIA L4\)"):
            supervisor.lease(model)
        machine.nvml.gpus[0].error = 0
        await machine.watch.look()
        await supervisor.machine_changed()
        lease = supervisor.lease(model)
        await lease.granted()
        lease.release()


async def test_whoever_waits_for_a_lost_gpu_is_refused_with_the_reason(runtime: Path) -> None:
    machine = Machine(FakeGpu())
    async with supervised(runtime, machine) as supervisor:
        model = fake.model(runtime, "slow", "--slow", "60", size=4 * GIB)
        lease = supervisor.lease(model)
        await fake.wait_change(supervisor, "slow", State.STARTING)
        machine.nvml.gpus[0].error = LOST
        await machine.watch.look()
        with anyio.fail_after(20), pytest.raises(Exception, match=r"GPU 0 cannot be used \(the GPU has fallen off"):
            await lease.granted()
        lease.release()


async def test_where_it_is_allowed_the_processor_takes_over_and_where_not_nothing_does(tmp_path: Path) -> None:
    homes = fake.FakeHomes(tmp_path / "engines", (fake.HOME, fake.ON_GPU))
    homes.in_use = lambda: homes.homes  # type: ignore[method-assign]
    machine = Machine(FakeGpu())
    machine.nvml.gpus[0].error = LOST
    await machine.watch.look()
    model = fake.model(tmp_path, "m")
    planner = Planner(fake.configuration(tmp_path), homes, machine.watch.verdict)
    with pytest.raises(NoGpuError, match=r"fleet\.cpu_fallback"):
        planner.plan(model)
    planner.configure(fake.configuration(tmp_path, cpu_fallback=True))
    assert planner.plan(model).settings.device == "cpu"
    machine.nvml.gpus[0].error = 0
    await machine.watch.look()
    assert planner.plan(model).settings.device == "cuda"


async def test_what_runs_on_the_processor_anyhow_is_not_held_up(tmp_path: Path) -> None:
    homes = fake.FakeHomes(tmp_path / "engines", (fake.HOME,))
    machine = Machine()
    await machine.watch.look()
    assert machine.watch.verdict().missing
    planner = Planner(fake.configuration(tmp_path), homes, machine.watch.verdict)
    assert planner.plan(replace(fake.model(tmp_path, "m"))).settings.device == "cpu"
