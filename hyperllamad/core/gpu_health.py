"""Which GPUs may be used now, and what is said of the others.

Owns the rules: which of the driver's errors make a GPU unusable, when it is back, and what follows for models where one
was expected and there is none.  Told of readings and errors, answers with news; must not know who reads, or when.

A GPU is *away* when it fell off the bus or its driver is gone, and back when it is read again.  It is *ailing* when the
driver has reported an error that only a reset mends, or asks for one: then it is back when the driver asks for nothing
any more, or, where the driver cannot say, when it was away and has come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from hyperllamad.core.machine import Gpu, Gpus

# Seconds the driver may leave readings unanswered before its GPUs count as away.  One that is only busy, with sixty
# engines that came and went on four GPUs at once, has been silent for more than five.
SILENCE = 60.0

# NVIDIA's "Xid Errors" catalogue: those after which nothing runs on the GPU, or nothing can be trusted, until a reset.
# Any other is the fault of one program, and that program's engine is what ends.
FATAL_XIDS: Mapping[int, str] = MappingProxyType(
    {
        48: "a memory error that could not be corrected",
        62: "its microcontroller halted",
        64: "a memory error that could not be recorded",
        74: "an NVLink error",
        79: "it has fallen off the bus",
        95: "a memory error that was not contained",
        119: "its system processor does not answer",
        120: "its system processor failed",
        140: "memory errors that could not be corrected",
        143: "it could not be initialised",
    }
)
RECOVERY_CHANGED = 154  # the Xid that says no more than that Gpu.recovery should be read again
RESET, REBOOT, DRAIN_AND_RESET = 1, 2, 4  # values of Gpu.recovery that ask for something before anybody may compute
_ASKED = MappingProxyType(
    {RESET: "the driver asks for a reset of it", REBOOT: "the driver asks for a restart of the machine"}
)


@dataclass(frozen=True, slots=True)
class Xid:
    """An error the driver reports of a GPU; see NVIDIA's catalogue for the numbers."""

    uuid: str
    number: int


@dataclass(frozen=True, slots=True)
class Known:
    """A GPU that was read at least once.  `total` is bytes."""

    uuid: str
    index: int
    name: str
    total: int
    away: str = ""  # why it cannot be read, a clause; "" when it can
    ailing: str = ""  # why it must not be used though it can be read

    @property
    def problem(self) -> str:
        return self.away or self.ailing

    @property
    def title(self) -> str:
        return f"GPU {self.index} ({self.name})"


@dataclass(frozen=True, slots=True)
class GpuNews:
    """One GPU may no longer be used (`problem` says why), or may be used (again)."""

    gpu: Known
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"{self.gpu.title} is not used: {self.problem}"
        return f"{self.gpu.title} can be used"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What models may count on."""

    device: str  # "cuda" when there is a GPU to use, else "cpu"
    missing: str = ""  # why there is none though one is expected, a clause


@dataclass(slots=True)
class GpuHealth:
    """Mutable; told of every reading, in order."""

    gpus: dict[str, Known] = field(default_factory=dict)
    problem: str = ""  # the last reading's, about the driver as a whole
    silent_since: float | None = None  # monotonic seconds; None = it has answered

    def read(self, seen: Gpus, now: float) -> list[GpuNews]:
        """The driver was asked.

        1. It was silent: that is nothing, unless it has been for SILENCE; then its GPUs are away.
        2. It does not work at all: its GPUs are away.
        3. It answers: who is there is there, who is not, or answers with an error, is away.
        """
        before = dict(self.gpus)
        self.problem = seen.problem if not seen.devices else ""
        if not seen.silent:
            self.silent_since = None
        elif self.silent_since is None:
            self.silent_since = now
        if self.silent_since is not None and now - self.silent_since < SILENCE:  # 1
            return []
        there = {gpu.uuid: gpu for gpu in seen.devices}
        faults = {fault.index: fault.sentence for fault in seen.faults}
        for uuid, known in before.items():
            if uuid not in there:  # 2, 3
                why = faults.get(known.index) or self.problem or "the NVIDIA driver does not show it any more"
                self.gpus[uuid] = replace(known, away=why)
        for uuid, gpu in there.items():
            self.gpus[uuid] = _met(gpu, before.get(uuid))
        return self._news(before)

    def report(self, error: Xid) -> list[GpuNews]:
        """The driver reports an error; nothing, where it is the matter of the engine that was hit."""
        known = self.gpus.get(error.uuid)
        what = FATAL_XIDS.get(error.number)
        if known is None or what is None:
            return []
        before = dict(self.gpus)
        self.gpus[error.uuid] = replace(known, ailing=f"Xid {error.number}: {what}")
        return self._news(before)

    @property
    def unsure(self) -> bool:
        """Its GPUs are there as far as is known, but it does not answer: somebody should ask again."""
        return self.silent_since is not None and bool(self.gpus)

    @property
    def problems(self) -> tuple[Known, ...]:
        """GPUs that were seen and may not be used now, by number."""
        return tuple(sorted((gpu for gpu in self.gpus.values() if gpu.problem), key=lambda gpu: gpu.index))

    def verdict(self, *, expected: bool, nodes: bool, library: bool) -> Verdict:
        """What models may count on now.

        `expected`: an engine is installed for GPUs.  `nodes`: there are device files of GPUs.  `library`: the driver's
        management library can be loaded; without it (some containers) device files are all there is to go by.
        """
        if any(not gpu.problem for gpu in self.gpus.values()):
            return Verdict("cuda")
        if not self.gpus and nodes and (not library or not self.problem):
            return Verdict("cuda")
        if not expected:
            return Verdict("cpu")
        why = "; ".join(f"{gpu.title}: {gpu.problem}" for gpu in self.problems)
        return Verdict("cpu", why or self.problem or "no GPU is found")

    def _news(self, before: Mapping[str, Known]) -> list[GpuNews]:
        """What has become different, GPU by GPU; that a problem is another one now is no news."""
        out = []
        for uuid, gpu in self.gpus.items():
            old = before.get(uuid)
            was_well = None if old is None else not old.problem
            if was_well is not (not gpu.problem):
                out.append(GpuNews(gpu, gpu.problem))
        return out


def _met(gpu: Gpu, old: Known | None) -> Known:
    """One that can be read: is it well?"""
    asked = ""
    if gpu.recovery in {RESET, REBOOT, DRAIN_AND_RESET}:
        asked = _ASKED.get(gpu.recovery, _ASKED[RESET])
    ailing = "" if old is None or old.away else old.ailing  # it was away: whatever ailed it, it has been started anew
    if gpu.recovery is not None:  # the driver says whether anything is left to be done
        ailing = (ailing or asked) if asked else ""
    return Known(gpu.uuid, gpu.index, gpu.name, gpu.total, ailing=ailing)
