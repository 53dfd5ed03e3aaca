"""The NVIDIA driver's errors as they happen: Xid numbers from NVML's event set, heard in a thread of its own.

Must not know what an error means: core/gpu_health.py does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel

from hyperllamad.core.gpu_health import Xid
from hyperllamad.supervision.gpus import load_pynvml

WAIT = 60_000  # milliseconds in the driver at a time: how rarely the thread wakes while nothing happens
TIMEOUT, NOT_SUPPORTED = 10, 3  # nvml.h: NVML_ERROR_TIMEOUT, NVML_ERROR_NOT_SUPPORTED


async def listen(heard: Callable[[Xid], None], load: Callable[[], Any] = load_pynvml) -> bool:
    """Until the driver tells no more; True when it may do so again after a while, False when it never does.

    An error of a GPU that cannot be told apart any more has the uuid "".
    """
    over, stop = anyio.Event(), threading.Event()
    ends: list[bool] = []
    token = anyio.lowlevel.current_token()

    def tell(what: Callable[..., object], *arguments: object) -> None:
        with suppress(Exception):  # the loop may be over by now
            anyio.from_thread.run_sync(what, *arguments, token=token)

    def work() -> None:
        ends.append(_hear(load, lambda xid: tell(heard, xid), stop))
        tell(over.set)

    # A thread that the end of the daemon does not wait for: it sits in the driver.
    threading.Thread(target=work, name="xids", daemon=True).start()
    try:
        await over.wait()
    finally:
        stop.set()
    return ends[0]


def _hear(load: Callable[[], Any], heard: Callable[[Xid], None], stop: threading.Event) -> bool:
    try:
        nvml = load()
        nvml.nvmlInit()
    except OSError:
        return True  # no driver yet
    except Exception:  # noqa: BLE001  # pynvml's classes are made when it is loaded
        return True
    try:
        return _wait(nvml, heard, stop)
    except nvml.NVMLError as failure:
        return getattr(failure, "value", 0) != NOT_SUPPORTED
    finally:
        with suppress(Exception):
            nvml.nvmlShutdown()


def _wait(nvml: Any, heard: Callable[[Xid], None], stop: threading.Event) -> bool:
    events = nvml.nvmlEventSetCreate()
    try:
        registered = sum(_register(nvml, index, events) for index in range(nvml.nvmlDeviceGetCount()))
        while registered and not stop.is_set():
            try:
                event = nvml.nvmlEventSetWait_v2(events, WAIT)
            except nvml.NVMLError as failure:
                if getattr(failure, "value", 0) != TIMEOUT:
                    raise
                continue
            heard(Xid(_uuid(nvml, event.device), int(event.eventData)))
        return bool(registered)
    finally:
        with suppress(Exception):
            nvml.nvmlEventSetFree(events)


def _register(nvml: Any, index: int, events: Any) -> bool:
    """Whether this GPU tells of its errors; one that is lost does not."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
    except nvml.NVMLError:
        return False
    return True


def _uuid(nvml: Any, device: Any) -> str:
    try:
        found = nvml.nvmlDeviceGetUUID(device)
    except nvml.NVMLError:
        return ""
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)
