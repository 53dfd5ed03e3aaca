"""Reading GPUs through a fake NVML; and, here, what is said on a machine that has no driver."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest

from hyperllamad.core.machine import Capability, Gpu, GpuProcess, Gpus
from hyperllamad.supervision import gpus, machine
from hyperllamad.supervision.gpus import GpuReader
from tests.supervision.fake_nvml import GIB, FakeGpu, FakeNvml, no_driver

L4, H100 = 300_048_000_000, 3_352_320_000_000  # bytes a second: 300 GB/s and 3.35 TB/s on their makers' pages


async def test_everything_that_is_asked() -> None:
    nvml = FakeNvml(
        FakeGpu(compute={7: 512, 8: None}, graphics={7: 512, 9: 100}),
        FakeGpu("NVIDIA H100", (9, 0), clock=2619, bus=5120),
    )
    found = await GpuReader(nvml.load).read()
    processes = (GpuProcess(7, 512), GpuProcess(8, None), GpuProcess(9, 100))
    assert found == Gpus(
        devices=(
            Gpu(0, "GPU-0", "NVIDIA L4", Capability(8, 9), 24 * GIB, 23 * GIB, GIB, processes, bandwidth=L4),
            Gpu(1, "GPU-1", "NVIDIA H100", Capability(9, 0), 24 * GIB, 23 * GIB, GIB, bandwidth=H100),
        ),
        driver="580.159.04",
        cuda="13.0",
    )
    assert str(found.devices[0].capability) == "8.9"
    assert Capability(8, 9) < Capability(9, 0) < Capability(12, 0)


async def test_the_library_is_opened_once() -> None:
    nvml = FakeNvml(FakeGpu())
    reader = GpuReader(nvml.load)
    await reader.read()
    nvml.gpus[0].used = 2 * GIB
    assert (await reader.read()).devices[0].used == 2 * GIB
    assert nvml.calls["init"] == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9, "not loaded"),
        (18, "restart the machine"),
        (12, "no NVIDIA driver"),
        (4, "may not be used"),
        (999, "answers: error 999"),
    ],
)
async def test_a_driver_that_does_not_work_is_tried_again(code: int, words: str) -> None:
    nvml = FakeNvml(FakeGpu())
    nvml.init_error = code
    reader = GpuReader(nvml.load)
    found = await reader.read()
    assert found.devices == ()
    assert words in found.problem
    nvml.init_error = 0
    assert len((await reader.read()).devices) == 1


async def test_a_lost_gpu_does_not_hide_the_others() -> None:
    nvml = FakeNvml(FakeGpu(error=15), FakeGpu("other"))
    reader = GpuReader(nvml.load)
    found = await reader.read()
    assert [gpu.name for gpu in found.devices] == ["other"]
    assert "GPU 0: the GPU has fallen off the bus" in found.problem
    nvml.gpus[0].error = 0
    assert len((await reader.read()).devices) == 2
    assert nvml.calls["init"] == 2  # the library was opened anew


async def test_no_gpu_and_no_driver() -> None:
    assert (await GpuReader(FakeNvml().load).read()).problem == "the NVIDIA driver shows no GPU"
    assert await GpuReader(no_driver).read() == Gpus(problem="no NVIDIA driver")


async def test_memory_that_is_the_machines() -> None:
    found = await GpuReader(FakeNvml(FakeGpu("GB10", unified=True)).load).read()
    (gpu,) = found.devices
    assert gpu.unified
    assert 0 < gpu.free <= gpu.total
    assert found.problem == ""


async def test_a_driver_that_hangs() -> None:
    """Nobody waits longer than told; no second thread is sent after the first; when it answers, all is well again."""
    nvml = FakeNvml(FakeGpu())
    nvml.gate = threading.Event()
    reader = GpuReader(nvml.load)
    with anyio.fail_after(10):
        for _ in range(3):
            assert "does not answer within 0.05 s" in (await reader.read(patience=0.05)).problem
        assert nvml.calls["count"] == 1
        nvml.gate.set()
        while not (found := await reader.read()).devices:
            pass
    assert found.problem == ""


async def test_reads_at_once_wait_for_each_other() -> None:
    nvml = FakeNvml(FakeGpu())
    reader = GpuReader(nvml.load)
    found: list[Gpus] = []

    async def read() -> None:
        found.append(await reader.read())

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(read)
    assert [len(one.devices) for one in found] == [1] * 8
    assert nvml.calls["init"] == 1


async def test_this_machine() -> None:
    try:
        ctypes.CDLL(gpus.LIBRARY)
    except OSError:
        assert await GpuReader().read() == Gpus(problem="no NVIDIA driver")
        assert "pynvml" not in sys.modules  # not even loaded
    else:
        assert (await GpuReader().read()).driver


async def test_where_there_is_no_driver_asking_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class for each reading, as ctypes.CDLL makes it, would fill Python's caches for hours."""
    monkeypatch.setattr(gpus, "LIBRARY", "libno-such-driver.so.1")
    classes = len(object.__subclasses__()) + len(ctypes._CFuncPtr.__subclasses__())  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="libno-such-driver"):
        gpus.load_pynvml()
    assert await GpuReader().read() == Gpus(problem="no NVIDIA driver")
    assert len(object.__subclasses__()) + len(ctypes._CFuncPtr.__subclasses__()) == classes  # type: ignore[attr-defined]


async def test_our_own_engines_and_an_unknown_bandwidth() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            gpu = FakeGpu(used=5 * GIB, clock=0, compute={child.pid: 3 * GIB, 1: GIB})
            found = await machine.read(GpuReader(FakeNvml(gpu).load))
        finally:
            child.kill()
    (device,) = found.gpus.devices
    assert (device.ours, device.room, device.bandwidth) == (3 * GIB, 22 * GIB, 0)
    assert 0 < found.ours < found.room <= found.memory


async def test_the_whole_machine(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("model name\t: Fast CPU\nflags\t\t: fpu avx2\n")
    (tmp_path / "meminfo").write_text("MemTotal: 16384 kB\nMemFree: 1024 kB\nMemAvailable: 8192 kB\n")
    found = await machine.read(GpuReader(FakeNvml(FakeGpu()).load), tmp_path)
    assert (found.processor, found.features) == ("Fast CPU", {"fpu", "avx2"})
    assert (found.memory, found.available) == (16 << 20, 8 << 20)
    assert found.cores >= 1
    assert len(found.gpus.devices) == 1
    assert await machine.read(GpuReader(no_driver), tmp_path / "nowhere")  # says little, but says it
