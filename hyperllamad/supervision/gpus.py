"""NVIDIA's management library, read in a worker thread: which GPUs, how much memory, who holds it.

Owns the library's state.  A read never raises and never waits longer than it is told to: where there is no driver, a
broken one, or one that hangs, the answer says so in a sentence.  Decides nothing.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel

from hyperllamad.core.machine import Capability, Gpu, GpuFault, GpuProcess, Gpus
from hyperllamad.supervision import memory

PATIENCE = 5.0  # seconds; a healthy driver answers in a few milliseconds, one that wakes a GPU in one or two seconds
LIBRARY = "libnvidia-ml.so.1"

NO_DRIVER = "no NVIDIA driver"
_SENTENCES = {  # NVML's error codes, by the names nvml.h gives them
    12: NO_DRIVER,  # LIBRARY_NOT_FOUND
    9: "the NVIDIA driver is not loaded",  # DRIVER_NOT_LOADED
    4: "the NVIDIA driver may not be used by this user",  # NO_PERMISSION
    15: "the GPU has fallen off the bus or is not accessible: look at `dmesg`",  # GPU_IS_LOST
    16: "the GPU must be reset before it can be used",  # RESET_REQUIRED
    18: "the NVIDIA driver was updated while an older one is loaded: restart the machine",  # LIB_RM_VERSION_MISMATCH
}


# dlopen(3) itself: `ctypes.CDLL` makes a class before it looks for the library, and this is asked with every load.
_libc = ctypes.CDLL(None)
_dlopen, _dlerror = _libc.dlopen, _libc.dlerror
_dlopen.argtypes, _dlopen.restype, _dlerror.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p, ctypes.c_char_p


def load_pynvml() -> Any:
    """The library's Python side.  Raises OSError where there is no driver, before any of it is imported."""
    if not _dlopen(LIBRARY.encode(), os.RTLD_LAZY):
        raise OSError((_dlerror() or LIBRARY.encode()).decode(errors="replace"))
    return importlib.import_module("pynvml")


class GpuReader:
    """Reads all GPUs.  `load` is replaced by tests."""

    def __init__(self, load: Callable[[], Any] = load_pynvml) -> None:
        self._load = load
        self._nvml: Any = None  # opened once: opening takes as long as a hundred reads
        self._reading = threading.Lock()
        self.on_read: Callable[[Gpus], None] = lambda _: None  # is told of every reading that was waited for

    async def read(self, *, patience: float = PATIENCE) -> Gpus:
        """What there is now."""
        answers: list[Gpus] = []
        answered = anyio.Event()
        token = anyio.lowlevel.current_token()

        def work() -> None:
            answers.append(self.read_now(patience=patience))
            with suppress(Exception):  # the loop may be over by now
                anyio.from_thread.run_sync(answered.set, token=token)

        # A thread that the end of the daemon does not wait for: one that hangs in the driver cannot be ended.
        threading.Thread(target=work, name="nvml", daemon=True).start()
        with anyio.move_on_after(patience):
            await answered.wait()
        found = answers[0] if answers else _silent(patience)
        self.on_read(found)
        return found

    def read_now(self, *, patience: float = PATIENCE) -> Gpus:
        """The same, blocking for as long as the driver likes; waits `patience` seconds for a read that is going on."""
        if not self._reading.acquire(timeout=patience):
            return _silent(patience)
        try:
            return self._read(self._opened())
        except OSError:
            return Gpus(problem=NO_DRIVER)
        except Exception as failure:  # noqa: BLE001  # pynvml's classes are made when it is loaded
            self._close()
            return Gpus(problem=_sentence(failure))
        finally:
            self._reading.release()

    def _opened(self) -> Any:
        if self._nvml is None:
            nvml = self._load()
            nvml.nvmlInit()
            self._nvml = nvml
        return self._nvml

    def _close(self) -> None:
        """So that the next read begins anew: the driver may have been loaded or updated by then."""
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            with suppress(Exception):
                nvml.nvmlShutdown()

    def _read(self, nvml: Any) -> Gpus:
        found, faults = [], []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                found.append(_gpu(nvml, index))
            except nvml.NVMLError as failure:  # one lost GPU does not hide the others
                faults.append(GpuFault(index, _sentence(failure)))
        problem = "; ".join(f"GPU {fault.index}: {fault.sentence}" for fault in faults)
        if not found and not faults:
            problem = "the NVIDIA driver shows no GPU"
        cuda, driver = nvml.nvmlSystemGetCudaDriverVersion(), _text(nvml.nvmlSystemGetDriverVersion())
        if problem:
            self._close()
        return Gpus(
            devices=tuple(found),
            driver=driver,
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
            problem=problem,
            faults=tuple(faults),
        )


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    total, free, used, unified = _memory(nvml, handle)
    return Gpu(
        index=index,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        capability=Capability(*nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        total=total,
        free=free,
        used=used,
        processes=tuple(_processes(nvml, handle)),
        unified=unified,
        bandwidth=_bandwidth(nvml, handle),
        recovery=_recovery(nvml, handle),
    )


def _memory(nvml: Any, handle: Any) -> tuple[int, int, int, bool]:
    try:
        found = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:  # Grace and Jetson boards share the machine's memory
        total, available = memory.read()
        return total, available, total - available, True
    return int(found.total), int(found.free), int(found.used), False


def _bandwidth(nvml: Any, handle: Any) -> int:
    """Two transfers for each tick of the memory's clock, over the whole bus: an H100's data sheet says so too."""
    try:
        hertz = nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM) * 1_000_000
        return int(2 * hertz * nvml.nvmlDeviceGetMemoryBusWidth(handle) // 8)
    except nvml.NVMLError:
        return 0


def _recovery(nvml: Any, handle: Any) -> int | None:
    """What must be done to it before it can be used again; drivers before 565 and old versions of pynvml do not say."""
    field = getattr(nvml, "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION", None)
    if field is None:
        return None
    try:
        (answer,) = nvml.nvmlDeviceGetFieldValues(handle, [field])
    except nvml.NVMLError:
        return None
    return int(answer.value.uiVal) if answer.nvmlReturn == nvml.NVML_SUCCESS else None


def _processes(nvml: Any, handle: Any) -> Iterator[GpuProcess]:
    """Each once, though one that computes and draws is listed twice with the same memory."""
    seen = set()
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        with _unless_unsupported(nvml):
            for one in ask(handle):
                if one.pid not in seen:
                    seen.add(one.pid)
                    yield GpuProcess(int(one.pid), None if one.usedGpuMemory is None else int(one.usedGpuMemory))


@contextmanager
def _unless_unsupported(nvml: Any) -> Iterator[None]:
    with suppress(nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission):
        yield


def _silent(patience: float) -> Gpus:
    return Gpus(problem=f"the NVIDIA driver does not answer within {patience:g} s", silent=True)


def _sentence(failure: Exception) -> str:
    code = getattr(failure, "value", None)
    return _SENTENCES.get(code, f"the NVIDIA driver answers: {failure}") if code else f"NVML failed: {failure!r}"


def _text(value: str | bytes) -> str:
    """Bytes in old versions of pynvml."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
