"""NVML as pynvml shows it, in memory: GPUs, processes, and what can go wrong."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

GIB = 1 << 30


class NVMLError(Exception):
    """pynvml's: `value` is NVML's code."""

    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


class NVMLError_NotSupported(NVMLError):  # pynvml's name
    pass


class NVMLError_NoPermission(NVMLError):  # pynvml's name
    pass


@dataclass
class FakeGpu:
    name: str = "NVIDIA L4"
    capability: tuple[int, int] = (8, 9)
    total: int = 24 * GIB
    used: int = GIB
    compute: dict[int, int | None] = field(default_factory=dict)  # pid -> bytes
    graphics: dict[int, int | None] = field(default_factory=dict)
    error: int = 0  # what every question about it is answered with
    unified: bool = False
    clock: int = 6251  # MHz
    bus: int = 192  # bits


class FakeNvml:
    """In the module's place."""

    NVMLError = NVMLError
    NVMLError_NotSupported = NVMLError_NotSupported
    NVMLError_NoPermission = NVMLError_NoPermission

    NVML_CLOCK_MEM = 2

    def __init__(self, *gpus: FakeGpu) -> None:
        self.gpus = list(gpus)
        self.init_error = 0
        self.calls: Counter[str] = Counter()
        self.gate: threading.Event | None = None  # a read waits for it

    def load(self) -> FakeNvml:
        return self

    def nvmlInit(self) -> None:
        self.calls["init"] += 1
        _fail(self.init_error)

    def nvmlShutdown(self) -> None:
        self.calls["shutdown"] += 1

    def nvmlDeviceGetCount(self) -> int:
        self.calls["count"] += 1
        if self.gate is not None:
            self.gate.wait()
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        _fail(self.gpus[index].error)
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return f"GPU-{self.gpus.index(gpu)}"

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> bytes:
        return gpu.name.encode()

    def nvmlDeviceGetCudaComputeCapability(self, gpu: FakeGpu) -> tuple[int, int]:
        return gpu.capability

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:
        if gpu.unified:
            raise NVMLError_NotSupported(3)
        return SimpleNamespace(total=gpu.total, used=gpu.used, free=gpu.total - gpu.used)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[Any]:
        return _listed(gpu.compute)

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: FakeGpu) -> list[Any]:
        if gpu.unified:
            raise NVMLError_NotSupported(3)
        return _listed(gpu.graphics)

    def nvmlDeviceGetMaxClockInfo(self, gpu: FakeGpu, kind: int) -> int:
        assert kind == self.NVML_CLOCK_MEM
        if not gpu.clock:
            raise NVMLError_NotSupported(3)
        return gpu.clock

    def nvmlDeviceGetMemoryBusWidth(self, gpu: FakeGpu) -> int:
        return gpu.bus

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.159.04"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 13000


def no_driver() -> Any:
    """What loading does where there is no driver."""
    raise OSError("libnvidia-ml.so.1: cannot open shared object file")


def _listed(processes: dict[int, int | None]) -> list[Any]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in processes.items()]


def _fail(code: int) -> None:
    if code:
        raise NVMLError(code)
