"""What the devices say about memory, and which instance holds how much of it: one reading for the ledger.

Reads GPUs, the host's memory and process trees; decides nothing.  Processes first, then devices: what grows in between
is then counted twice rather than not at all.  Bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import anyio.to_thread

from hyperllamad.core.gpu_health import Known
from hyperllamad.core.ledger import Measured
from hyperllamad.core.machine import Gpu
from hyperllamad.core.models import HOST, Device, Key, Placement
from hyperllamad.supervision import memory, procfs
from hyperllamad.supervision.gpus import GpuReader


@dataclass(frozen=True, slots=True)
class Held:
    """A life, as far as its memory is found by it."""

    guard: int  # the process above all of its own; 0 = has not started
    placement: Placement | None


@dataclass(frozen=True, slots=True)
class Reading:
    """For the ledger, and for what is learned of it."""

    measured: Measured
    sizes: Mapping[Key, Mapping[str, int]]  # by instance and device: all that it uses, shared and mapped pages too


class Meter:
    """read() as often as it is asked to."""

    def __init__(self, gpus: GpuReader, *, host_limit: int = 0, known: Callable[[], Iterable[Known]] = tuple) -> None:
        """`host_limit`: bytes of host memory that models may use together; 0 = what the machine has.

        `known` are the GPUs that were ever seen: one that is not used, or not read this time, has nothing to give.
        """
        self._gpus = gpus
        self._known = known
        self._host_limit = host_limit
        self._others: dict[str, int] = {}  # bytes by GPU that were not ours when we had nothing there

    async def read(self, lives: Mapping[Key, Held], now: float) -> Reading:
        """What there is; `now` is the fleet's time."""
        trees, anonymous, resident = await anyio.to_thread.run_sync(_trees, {k: h.guard for k, h in lives.items()})
        seen = await self._gpus.read()
        gpus = seen.devices
        host = await anyio.to_thread.run_sync(self._host, sum(anonymous.values()))
        taken: dict[Key, dict[str, int]] = {key: {HOST: count} for key, count in anonymous.items()}
        sizes: dict[Key, dict[str, int]] = {key: {HOST: count} for key, count in resident.items()}
        for gpu in gpus:
            for key, count in self._shares(gpu, trees, lives).items():
                taken[key][gpu.uuid] = sizes[key][gpu.uuid] = count
        if seen.silent and any(not gpu.problem for gpu in self._known()):
            return Reading(Measured(now), sizes)  # its driver takes its time: what was known before holds on
        return Reading(Measured(now, (*self._devices(gpus), host), taken), sizes)

    def _devices(self, read: Iterable[Gpu]) -> Iterator[Device]:
        known = {gpu.uuid: gpu for gpu in self._known()}
        for gpu in read:
            problem = known[gpu.uuid].problem if gpu.uuid in known else ""
            yield Device(gpu.uuid, gpu.index, gpu.total, gpu.free, gpu.name, problem)
            known.pop(gpu.uuid, None)
        for one in known.values():
            yield Device(one.uuid, one.index, one.total, 0, one.name, one.problem or "its driver does not answer")

    def _host(self, ours: int) -> Device:
        total, available = memory.read()
        if 0 < self._host_limit < total:
            total, available = self._host_limit, min(available, max(0, self._host_limit - ours))
        return Device(HOST, -1, total, available, kind="host memory")

    def _shares(self, gpu: Gpu, trees: Mapping[Key, Sequence[int]], lives: Mapping[Key, Held]) -> dict[Key, int]:
        """Bytes of one GPU by instance.

        Where the driver does not say whose they are (in containers it knows other process numbers), what is used
        beyond what was used without us is shared out among those who lie there, up to what each may take.
        """
        by_pid = {process.pid: process.memory for process in gpu.processes}
        found = {key: sum(by_pid.get(pid) or 0 for pid in pids) for key, pids in trees.items()}
        here = {key: _reserved(lives[key].placement, gpu.uuid) for key in trees}
        if not any(here.values()):
            self._others[gpu.uuid] = gpu.used
        unknown = [key for key, reserved in here.items() if reserved and trees[key] and not found[key]]
        rest = gpu.used - self._others.get(gpu.uuid, gpu.used) - sum(found.values())
        for key in unknown:
            found[key] = min(here[key], max(0, rest))
            rest -= found[key]
        return {key: count for key, count in found.items() if count}


def _reserved(placement: Placement | None, device: str) -> int:
    return sum(share.bytes for share in placement.shares if share.device == device) if placement else 0


def _trees(guards: Mapping[Key, int]) -> tuple[dict[Key, list[int]], dict[Key, int], dict[Key, int]]:
    """Processes of each instance, its guard first, and their host memory: what the kernel cannot take back, and all."""
    everybody = list(procfs.processes()) if guards else []
    trees = {key: [guard, *procfs.descendants(guard, everybody)] if guard else [] for key, guard in guards.items()}
    anonymous = {key: procfs.unreclaimable(pids) for key, pids in trees.items()}
    resident = {key: procfs.resident(pids) for key, pids in trees.items()}
    return trees, anonymous, resident
