"""The whole machine, read: GPUs from NVML, processor and memory from /proc.  Decides nothing."""

from __future__ import annotations

import os
from pathlib import Path

from hyperllamad.core.machine import Machine
from hyperllamad.engines import host
from hyperllamad.supervision import memory
from hyperllamad.supervision.gpus import GpuReader


async def read(gpus: GpuReader, proc: Path = memory.PROC) -> Machine:
    """What there is now; what cannot be found out is empty or 0."""
    total, available = memory.read(proc)
    return Machine(
        gpus=await gpus.read(),
        processor=host.processor(proc / "cpuinfo"),
        cores=len(os.sched_getaffinity(0)),
        features=host.features(proc / "cpuinfo"),
        memory=total,
        available=available,
    )
