"""What this machine is, as far as engines must know it.  Reads; decides nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hyperllamad.config.tables import EnginesTable
from hyperllamad.engines.base import Host

# Feature names in /proc/cpuinfo: x86's AVX-512 and AMX forms, Arm's.
BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def read(table: EnginesTable, cpuinfo: Path = Path("/proc/cpuinfo")) -> Host:
    """The machine, and what [engines] allows, for every Place."""
    return Host(
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        bfloat16=not BFLOAT16.isdisjoint(features(cpuinfo)),
        telemetry=table.telemetry,
        hub_access=table.hub_access,
    )


def device(devices: Path = Path("/dev"), environ: Mapping[str, str] = os.environ) -> str:
    """ "cuda" when the NVIDIA driver shows a GPU that CUDA_VISIBLE_DEVICES does not hide, else "cpu"."""
    hidden = environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    return "cuda" if not hidden and any(devices.glob("nvidia[0-9]*")) else "cpu"


def features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The features of the first CPU; none where the file cannot be read."""
    return frozenset((_field(cpuinfo, "flags") or _field(cpuinfo, "Features")).split())


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The name of the first CPU; "" where the file does not say (Arm's often does not)."""
    return _field(cpuinfo, "model name")


def _field(cpuinfo: Path, wanted: str) -> str:
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            return value.strip()
    return ""
