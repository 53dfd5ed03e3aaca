"""The whole machine, read: GPUs from NVML, processor and memory from /proc.  Decides nothing."""

from __future__ import annotations

import os
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from hyperllamad.core.machine import Gpu, Machine
from hyperllamad.engines import host
from hyperllamad.supervision import memory, procfs
from hyperllamad.supervision.gpus import GpuReader


async def read(gpus: GpuReader, proc: Path = memory.PROC) -> Machine:
    """What there is now; what cannot be found out is empty or 0.  Our own engines are told from everybody else."""
    total, available = memory.read(proc)
    found = await gpus.read()
    engines = set(procfs.descendants(os.getpid(), procfs.processes()))
    return Machine(
        gpus=replace(found, devices=tuple(_with_ours(gpu, engines) for gpu in found.devices)),
        processor=host.processor(proc / "cpuinfo"),
        cores=len(os.sched_getaffinity(0)),
        features=host.features(proc / "cpuinfo"),
        memory=total,
        available=available,
        ours=procfs.resident(engines),
    )


def _with_ours(gpu: Gpu, engines: AbstractSet[int]) -> Gpu:
    return replace(gpu, ours=sum(one.memory or 0 for one in gpu.processes if one.pid in engines))
