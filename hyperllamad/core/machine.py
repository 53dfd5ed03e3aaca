"""What a machine is, as far as decisions depend on it: GPUs, memory, processor.  Plain data; supervision/gpus.py and
supervision/machine.py read it.  Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Capability(NamedTuple):
    """NVIDIA's compute capability, which says what a GPU can compute in."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class GpuProcess(NamedTuple):
    """A process that holds memory on a GPU."""

    pid: int
    memory: int | None  # None = the driver does not say (in containers of other users, on WSL)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at one moment."""

    index: int  # NVML's, in the order of the PCI bus: not always CUDA's
    uuid: str  # what CUDA_VISIBLE_DEVICES takes
    name: str
    capability: Capability
    total: int
    free: int
    used: int  # by everybody, the driver included
    processes: tuple[GpuProcess, ...] = ()
    unified: bool = False  # it has no memory of its own: total and free are the machine's
    bandwidth: int = 0  # bytes a second between it and its memory; 0 = not known
    ours: int = 0  # of `used`, what our own engines hold: it comes back when they are unloaded
    recovery: int | None = None  # what the driver asks for before it can be used, in NVML's numbers; None = unknown

    @property
    def room(self) -> int:
        """What a model could have, once ours have left."""
        return min(self.total, self.free + self.ours)


@dataclass(frozen=True, slots=True)
class GpuFault:
    """A GPU that the driver counts, but that does not answer."""

    index: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Gpus:
    """Every GPU that answers.  `problem` is a sentence that says why there is none, or not all of them."""

    devices: tuple[Gpu, ...] = ()
    driver: str = ""  # version
    cuda: str = ""  # the newest version of CUDA that the driver serves
    problem: str = ""
    faults: tuple[GpuFault, ...] = ()
    silent: bool = False  # the driver did not answer in time: nothing is known


@dataclass(frozen=True, slots=True)
class Machine:
    """The whole machine at one moment."""

    gpus: Gpus = Gpus()
    processor: str = ""
    cores: int = 1  # that may be used
    features: frozenset[str] = frozenset()  # of the processor, as /proc/cpuinfo spells them
    memory: int = 0  # that may be used: the machine's, or what the service is limited to
    available: int = 0  # of it, without pushing anybody out
    ours: int = 0  # what our own engines hold

    @property
    def room(self) -> int:
        """What a model could have, once ours have left."""
        return min(self.memory, self.available + self.ours)
