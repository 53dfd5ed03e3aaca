"""NVML as pynvml shows it, in memory: GPUs, processes, and what can go wrong."""

from __future__ import annotations

import queue
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


@dataclass(eq=False)
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
    recovery: int | None = None  # what it asks to be done; None = the driver cannot say
    tells: bool = True  # of its errors


class FakeNvml:
    """In the module's place."""

    NVMLError = NVMLError
    NVMLError_NotSupported = NVMLError_NotSupported
    NVMLError_NoPermission = NVMLError_NoPermission

    NVML_CLOCK_MEM = 2
    NVML_SUCCESS = 0
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230
    nvmlEventTypeXidCriticalError = 8

    def __init__(self, *gpus: FakeGpu) -> None:
        self.gpus = list(gpus)
        self.init_error = 0
        self.calls: Counter[str] = Counter()
        self.gate: threading.Event | None = None  # a read waits for it
        self.loaded = 0  # opened and not closed again
        self.events: queue.SimpleQueue[tuple[FakeGpu | None, int]] = queue.SimpleQueue()

    def load(self) -> FakeNvml:
        return self

    def nvmlInit(self) -> None:
        self.calls["init"] += 1
        _fail(self.init_error)
        self.loaded += 1

    def nvmlShutdown(self) -> None:
        self.calls["shutdown"] += 1
        self.loaded -= 1

    def _must_be_loaded(self) -> None:
        _fail(0 if self.loaded else 1)  # NVML_ERROR_UNINITIALIZED

    # -- errors as they happen ---------------------------------------------------------------------------------------

    def xid(self, gpu: FakeGpu, number: int) -> None:
        """The driver reports an error of `gpu`."""
        self.events.put((gpu, number))

    def end_events(self, code: int) -> None:
        """Whoever waits for errors is answered with one of the library's own."""
        self.events.put((None, code))

    def nvmlEventSetCreate(self) -> object:
        self._must_be_loaded()
        return self.events

    def nvmlEventSetFree(self, events: object) -> None:
        self.calls["freed"] += 1

    def nvmlDeviceRegisterEvents(self, gpu: FakeGpu, kinds: int, events: object) -> None:
        assert kinds == self.nvmlEventTypeXidCriticalError
        _fail(0 if gpu.tells else 3)
        self.calls["registered"] += 1

    def nvmlEventSetWait_v2(self, events: object, milliseconds: int) -> Any:
        gpu, number = self.events.get()
        if gpu is None:
            raise NVMLError(number)
        return SimpleNamespace(device=gpu, eventType=8, eventData=number)

    # -- reading -----------------------------------------------------------------------------------------------------

    def nvmlDeviceGetFieldValues(self, gpu: FakeGpu, fields: list[int]) -> list[Any]:
        assert fields == [self.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]
        unknown = gpu.recovery is None
        return [SimpleNamespace(nvmlReturn=3 if unknown else 0, value=SimpleNamespace(uiVal=gpu.recovery or 0))]

    def nvmlDeviceGetCount(self) -> int:
        self.calls["count"] += 1
        self._must_be_loaded()
        if self.gate is not None:
            self.gate.wait()
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        _fail(self.gpus[index].error)
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        _fail(gpu.error)
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
        self._must_be_loaded()
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
