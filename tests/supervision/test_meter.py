"""Readings of memory: whose it is, also where the driver does not say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hyperllamad.core.models import HOST, Key, Placement, Share
from hyperllamad.supervision.gpus import GpuReader
from hyperllamad.supervision.meter import Held, Meter
from tests.supervision.fake_nvml import GIB, FakeGpu, FakeNvml

A, B = Key("a" * 12, "f" * 12), Key("b" * 12, "f" * 12)
UUID = "GPU-0"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Below us, and so a descendant of us: in these tests we are the guard."""
    with subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def on_gpu(uuid: str, count: int) -> Placement:
    return Placement((Share(uuid, 0, 24 * GIB, count, 0),))


async def uuid_of(nvml: FakeNvml) -> str:
    return (await GpuReader(nvml.load).read()).devices[0].uuid


async def test_a_process_tree_holds_what_its_processes_hold(child: subprocess.Popen[bytes]) -> None:
    nvml = FakeNvml(FakeGpu(used=6 * GIB, compute={child.pid: 4 * GIB, 1: GIB}))
    uuid = await uuid_of(nvml)
    reading = await Meter(GpuReader(nvml.load)).read({A: Held(os.getpid(), on_gpu(uuid, 5 * GIB))}, 7.0)
    assert reading.measured.began == 7.0
    gpu, host = reading.measured.devices
    assert (gpu.id, gpu.free, host.id) == (uuid, 18 * GIB, HOST)
    assert reading.measured.taken[A][uuid] == reading.sizes[A][uuid] == 4 * GIB
    assert 0 < reading.measured.taken[A][HOST] < reading.sizes[A][HOST], "mapped files are only in the size"


async def test_where_the_driver_hides_processes_what_came_with_us_is_ours(child: subprocess.Popen[bytes]) -> None:
    gpu = FakeGpu(used=2 * GIB)
    nvml = FakeNvml(gpu)
    uuid = await uuid_of(nvml)
    meter = Meter(GpuReader(nvml.load))
    await meter.read({}, 0.0)
    gpu.used = 9 * GIB
    held = {A: Held(os.getpid(), on_gpu(uuid, 5 * GIB)), B: Held(0, on_gpu(uuid, 5 * GIB))}
    taken = (await meter.read(held, 1.0)).measured.taken
    assert taken[A][uuid] == 5 * GIB, "never more than it may take"
    assert uuid not in taken[B], "it has no process yet"


async def test_a_stated_limit_is_all_the_host_memory_there_is() -> None:
    meter = Meter(GpuReader(FakeNvml().load), host_limit=GIB)
    (host,) = (await meter.read({}, 0.0)).measured.devices
    assert (host.total, host.free, host.kind) == (GIB, GIB, "host memory")
