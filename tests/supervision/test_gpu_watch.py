"""Watching GPUs through a fake NVML: a driver that comes late, a GPU that is lost, errors that are heard, a wake-up."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from hyperllamad.core.gpu_health import SILENCE, GpuNews, Verdict, Xid
from hyperllamad.core.machine import Gpus
from hyperllamad.supervision import xids
from hyperllamad.supervision.gpu_watch import GpuWatch
from hyperllamad.supervision.gpus import GpuReader
from tests.supervision.fake_nvml import FakeGpu, FakeNvml, no_driver
from tests.supervision.processes import wait_for

LOST, UNKNOWN = 15, 999  # NVML's codes


class Machine:
    """One whose driver can come and go."""

    def __init__(self, *gpus: FakeGpu) -> None:
        self.nvml = FakeNvml(*gpus)
        self.driver = True
        self.nodes = True
        self.news: list[str] = []
        reader = GpuReader(self.load)
        self.watch = GpuWatch(
            reader,
            lambda: True,
            device=lambda: "cuda" if self.nodes else "cpu",
            listen=partial(xids.listen, load=self.load),
            pause=0.01,
        )
        self.watch.on_news = self.heard

    def load(self) -> Any:
        return self.nvml if self.driver else no_driver()

    def heard(self, news: GpuNews) -> None:
        self.news.append(str(news))


@asynccontextmanager
async def watched(machine: Machine) -> AsyncIterator[None]:
    with anyio.fail_after(20):
        await machine.watch.look()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(machine.watch.run)
            try:
                yield
            finally:
                machine.nvml.end_events(UNKNOWN)  # a thread sits in the driver
                tasks.cancel_scope.cancel()


async def test_a_driver_that_comes_late_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(FakeGpu())
    machine.driver = machine.nodes = False
    told: list[str] = []

    def tell(sentence: str) -> None:
        told.append(sentence)
        machine.driver = machine.nodes = True

    with anyio.fail_after(20), caplog.at_level(logging.INFO):
        await machine.watch.wait_arrived(600, tell)
    assert told == ["waiting up to 600 s for a GPU: no NVIDIA driver"]
    assert machine.watch.verdict() == Verdict("cuda")
    assert machine.news == ["GPU 0 (NVIDIA L4) can be used"]
    assert "the GPU has come" in caplog.text


async def test_a_driver_that_does_not_come_is_given_up_loudly_and_looked_for_still(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine(FakeGpu())
    machine.driver = machine.nodes = False
    with anyio.fail_after(20):
        await machine.watch.wait_arrived(0.05, lambda _: None)
    assert machine.watch.verdict() == Verdict("cpu", "no NVIDIA driver")
    assert machine.watch.problems() == ("no GPU can be used: no NVIDIA driver",)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "no GPU can be used: no NVIDIA driver; looking for one all the while"
    async with watched(machine):
        machine.driver = machine.nodes = True
        await wait_for(lambda: machine.watch.verdict() == Verdict("cuda"))
        assert machine.watch.problems() == ()


async def test_nobody_waits_where_no_gpu_is_expected() -> None:
    reader = GpuReader(no_driver)
    watch = GpuWatch(reader, lambda: False, device=lambda: "cpu")
    with anyio.fail_after(5):
        await watch.wait_arrived(600, lambda _: pytest.fail("told"))
    assert (watch.verdict(), watch.problems()) == (Verdict("cpu"), ())


async def test_a_lost_gpu_is_found_by_any_reading_and_looked_for_until_it_is_back() -> None:
    machine = Machine(FakeGpu(), FakeGpu("other"))
    async with watched(machine):
        machine.news.clear()
        machine.nvml.gpus[0].error = LOST
        await machine.watch.look()
        (said,) = machine.watch.problems()
        assert said == machine.news[0]
        assert said.startswith("GPU 0 (NVIDIA L4) is not used: the GPU has fallen off the bus")
        machine.nvml.gpus[0].error = 0
        await wait_for(lambda: machine.watch.problems() == ())
        assert machine.news[1:] == ["GPU 0 (NVIDIA L4) can be used"]


async def test_errors_are_heard_as_they_happen(caplog: pytest.LogCaptureFixture) -> None:
    gpu = FakeGpu(recovery=0)
    machine = Machine(gpu)
    async with watched(machine):
        await wait_for(lambda: machine.nvml.calls["registered"] == 1)
        machine.nvml.xid(gpu, 31)
        await wait_for(lambda: "Xid 31 on GPU 0 (NVIDIA L4)" in caplog.text)
        assert machine.watch.problems() == ()
        gpu.recovery = 1
        machine.nvml.xid(gpu, 95)
        await wait_for(lambda: machine.watch.problems() != ())
        (said,) = machine.watch.problems()
        assert said == "GPU 0 (NVIDIA L4) is not used: Xid 95: a memory error that was not contained"
        assert machine.watch.verdict().device == "cpu"
        gpu.recovery = 0
        await wait_for(lambda: machine.watch.problems() == ())


async def test_one_that_falls_off_the_bus_has_no_name_any_more_and_is_found_by_looking() -> None:
    gpu = FakeGpu()
    machine = Machine(gpu)
    async with watched(machine):
        await wait_for(lambda: machine.nvml.calls["registered"] == 1)
        gpu.error = LOST
        machine.nvml.xid(gpu, 79)
        await wait_for(lambda: "fallen off the bus" in str(machine.watch.problems()))


async def test_a_driver_that_is_loaded_anew_is_listened_to_anew() -> None:
    machine = Machine(FakeGpu())
    async with watched(machine):
        await wait_for(lambda: machine.nvml.calls["registered"] == 1)
        machine.nvml.end_events(1)
        await wait_for(lambda: machine.nvml.calls["registered"] == 2)
        machine.nvml.xid(machine.nvml.gpus[0], 48)
        await wait_for(lambda: machine.watch.problems() != ())


async def test_gpus_that_tell_of_no_errors_are_not_asked_twice() -> None:
    heard: list[Xid] = []
    with anyio.fail_after(5):
        assert not await xids.listen(heard.append, FakeNvml(FakeGpu(tells=False)).load)
        assert await xids.listen(heard.append, no_driver), "a driver may still come"
    assert heard == []


async def test_after_a_sleep_gpus_get_their_time() -> None:
    """While the driver wakes, that it does not answer says nothing; afterwards it does."""
    machine = Machine(FakeGpu())
    await machine.watch.look()
    machine.news.clear()
    machine.nvml.gpus[0].error = LOST
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(machine.watch.recover, 600)
        reads = machine.nvml.calls["count"]
        await wait_for(lambda: machine.nvml.calls["count"] > reads + 2)
        assert machine.watch.problems() == ()
        machine.nvml.gpus[0].error = 0
    assert machine.news == []
    machine.nvml.gpus[0].error = LOST
    await machine.watch.recover(0.05)
    assert len(machine.watch.problems()) == 1


class Slow(GpuReader):
    """A driver that may be silent."""

    def __init__(self) -> None:
        super().__init__(lambda: FakeNvml(FakeGpu()))
        self.silent = False
        self.asked = 0

    async def read(self, *, patience: float = 0.0) -> Gpus:
        self.asked += 1
        if not self.silent:
            return await super().read()
        await anyio.lowlevel.checkpoint()
        found = Gpus(problem=f"the NVIDIA driver does not answer within {patience:g} s", silent=True)
        self.on_read(found)
        return found


async def test_a_driver_that_is_silent_for_a_while_is_asked_again_and_takes_nothing_away() -> None:
    reader, news, now = Slow(), list[str](), [0.0]
    watch = GpuWatch(reader, lambda: True, listen=_deaf, pause=0, clock=lambda: now[0])
    watch.on_news = lambda one: news.append(str(one))
    with anyio.fail_after(20):
        await watch.look()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run)
            reader.silent = True
            await watch.look()
            began = reader.asked
            await wait_for(lambda: reader.asked > began + 20)  # nobody else asks
            assert (watch.verdict(), watch.problems()) == (Verdict("cuda"), ())
            reader.silent = False
            await wait_for(lambda: not watch._health.unsure)
            assert news == ["GPU 0 (NVIDIA L4) can be used"]
            reader.silent = True
            await watch.look()
            assert len(news) == 1
            now[0] += SILENCE
            await wait_for(lambda: len(news) > 1)
            assert "does not answer" in news[1]
            assert watch.verdict().missing
            reader.silent = False
            await wait_for(lambda: len(news) > 2)
            assert news[2] == "GPU 0 (NVIDIA L4) can be used"
            tasks.cancel_scope.cancel()


async def _deaf(_: object) -> bool:
    return False
