"""An instance is over for good when its GPU's memory is measured back: what happens when it is late, or never comes.

Real children and the driver's library in memory (fake_nvml.py), which goes on saying that memory is taken after the
process that took it has gone, as a driver does that has a process stuck in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hyperllamad.core import ledger
from hyperllamad.core.errors import NoRoomError
from hyperllamad.core.gpu_health import Verdict
from hyperllamad.core.instance import State
from hyperllamad.core.models import Model
from hyperllamad.supervision.gpus import GpuReader
from hyperllamad.supervision.meter import Meter
from hyperllamad.supervision.supervisor import Supervisor
from tests.supervision import fake
from tests.supervision.fake_nvml import GIB, FakeGpu, FakeNvml
from tests.supervision.processes import wait_for

FOREIGN = 1 * GIB  # of the GPU's 24, held by others


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)
    monkeypatch.setattr(ledger, "COMES_BACK", 0.4)


@asynccontextmanager
async def loaded(runtime: Path, gpu: FakeGpu) -> AsyncIterator[tuple[Supervisor, Model]]:
    """A supervisor over one GPU, and a model of 10 GiB that lies there, idle."""
    meter = Meter(GpuReader(FakeNvml(gpu).load))
    async with fake.supervised(runtime, meter=meter, home=fake.ON_GPU, verdict=lambda: Verdict("cuda")) as supervisor:
        model = fake.model(runtime, "m", size=10 * GIB)
        lease = supervisor.lease(model)
        await lease.granted()
        gpu.used += 10 * GIB
        gpu.compute[supervisor.rows()[0].pid] = 10 * GIB
        await supervisor.measure()
        assert supervisor.rows()[0].size_gpu == 10 * GIB
        lease.release()
        yield supervisor, model


async def test_memory_that_comes_late_is_waited_for(runtime: Path) -> None:
    gpu = FakeGpu(used=FOREIGN)
    async with loaded(runtime, gpu) as (supervisor, _):
        big = supervisor.lease(fake.model(runtime, "big", size=20 * GIB))  # the other one has to go for it
        await wait_for(lambda: [row.name for row in supervisor.rows()] == ["big:latest"])
        assert supervisor.rows()[0].state is State.WAITING, "the GPU is still full, though nobody is there"
        gpu.used, gpu.compute = FOREIGN, {}
        await big.granted()
        assert await supervisor.missing() == ()
        big.release()


async def test_memory_that_never_comes_back_is_named_and_given_to_nobody(
    runtime: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = FakeGpu(used=FOREIGN)
    async with loaded(runtime, gpu) as (supervisor, model):
        gpu.compute = {}
        supervisor.unload(model)
        await wait_for(lambda: "has not come back" in caplog.text)  # nobody had to ask for that
        assert supervisor.rows() == ()
        (sentence,) = await supervisor.missing()
        assert sentence.startswith("10.0 GiB of GPU 0 has not come back since m:latest ended: ")
        with pytest.raises(NoRoomError, match=r"needs 20\.0 GiB, GPU 0 can free 13\.0 GiB"):
            await supervisor.lease(fake.model(runtime, "big", size=20 * GIB)).granted()
        small = supervisor.lease(fake.model(runtime, "small", size=12 * GIB))
        await small.granted()
        small.release()
        assert len(await supervisor.missing()) == 1, "another one's start does not hide it"
        gpu.used = FOREIGN
        assert await supervisor.missing() == ()
        big = supervisor.lease(fake.model(runtime, "big", size=20 * GIB))
        await big.granted()
        big.release()
