"""What is done when the machine goes to sleep and when it is back: models rest, GPUs are looked at, models are woken.

Before: nobody new is served, and each model does what core/suspension.py says, within the time that logind gives.
After: once the GPUs answer again, or have had their time, everybody who was there is woken or loaded again, and who
stayed is asked for a token; who does not answer is started anew, as at any other time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
import anyio.abc

from hyperllamad.core import suspension
from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.models import Key, Model
from hyperllamad.core.suspension import Rest
from hyperllamad.logind import Logind, NoLogindError, connected
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad")

PARAMETERS = Path("/proc/driver/nvidia/params")
AGAIN = 30.0  # seconds until a bus that went away is asked again
GPUS_BACK = 30.0  # seconds the driver gets after the machine woke, before its GPUs count as lost
WHY = "the machine goes to sleep"


@dataclass(frozen=True, slots=True)
class Coming:
    """A model to have again, and the seconds it was to stay after a request."""

    model: Model
    keep_alive: float


class Gpus(Protocol):
    """What is asked of supervision/gpu_watch.py."""

    async def recover(self, within: float) -> None: ...


async def follow(
    supervisor: Supervisor,
    gpus: Gpus,
    wanted: Callable[[], bool],
    *,
    connect: Callable[[], AbstractAsyncContextManager[Logind]] = connected,
    parameters: Path = PARAMETERS,
    again: float = AGAIN,
) -> None:
    """As long as there is somebody to tell us of sleep; `wanted` says whether models should rest."""
    sleep, said = Sleep(supervisor, gpus, parameters), ""
    async with anyio.create_task_group() as tasks:
        while True:
            try:
                async with connect() as logind:
                    said = ""
                    await _follow(logind, sleep, wanted, tasks)
            except NoLogindError as failure:
                if str(failure) != said:
                    log.info("nothing will be heard of suspend and resume: %s", failure)
                said = str(failure)
                tasks.start_soon(sleep.after)  # nobody will tell us
                if failure.lasting:
                    return
            await anyio.sleep(again)


async def _follow(logind: Logind, sleep: Sleep, wanted: Callable[[], bool], tasks: anyio.abc.TaskGroup) -> None:
    """Until the bus ends, with NoLogindError."""
    while True:
        within = await logind.delay()
        try:
            if wanted():
                await logind.hold()
        except NoLogindError as failure:
            log.warning("the machine will not wait for models when it goes to sleep: %s", failure)
        while await logind.next():
            if wanted():
                await sleep.before(within)
            logind.let_go()
        tasks.start_soon(sleep.after)


class Sleep:
    """One machine's: before() and after() in turn."""

    def __init__(self, supervisor: Supervisor, gpus: Gpus, parameters: Path = PARAMETERS) -> None:
        self._supervisor = supervisor
        self._gpus = gpus
        self._parameters = parameters
        self._began: float | None = None  # of the sleep, in seconds that count it; None = nothing was done before it
        self._back: dict[Key, Coming] = {}  # whom to have again
        self._waking = anyio.CancelScope()

    async def before(self, within: float) -> None:
        """Bring everybody to rest, in less than `within` seconds."""
        machine, share = self._supervisor.interruptions, suspension.shares(within)
        self._waking.cancel()
        self._began = _clock()
        standing = machine.pause()
        told = suspension.before(
            standing.views, standing.on_gpu, can_sleep=standing.can_sleep, kept=_kept(self._parameters)
        )
        for key, keep_alive in suspension.back(standing.views).items():
            self._back[key] = Coming(standing.models[key], keep_alive)
        for key, rest in told.items():
            machine.rest(key, rest, standing.can_sleep.get(key, 0), WHY)
        if not await self._rested(told, share.finish):
            for key in suspension.restless(machine.views(), told):
                machine.cut(key, WHY)
            await self._rested(told, share.give_way)
        counts = {rest.name.lower(): sum(one is rest for one in told.values()) for rest in Rest}
        log.info(WHY, extra=fields(seconds=_clock() - self._began, **counts))

    async def _rested(self, told: Mapping[Key, Rest], within: float) -> bool:
        """Whether everybody is, in time."""
        with anyio.move_on_after(within), self._supervisor.watch() as changes:
            while not suspension.rested(self._supervisor.interruptions.views(), told):
                if await anext(changes, None) is None:  # the daemon ends, and its engines with it
                    break
            return True
        return False

    async def after(self) -> None:
        """The machine is back: look at the GPUs, then bring back who was there.  The next sleep ends it."""
        if self._began is None:
            return
        slept, self._began = _clock() - self._began, None
        log.info("the machine is back", extra=fields(seconds=slept))
        with anyio.CancelScope() as self._waking:
            try:
                await self._gpus.recover(GPUS_BACK)
            finally:
                if self._began is None:  # else the next sleep has begun
                    self._supervisor.interruptions.resume()
            async with anyio.create_task_group() as tasks:
                for key, coming in self._back.items():
                    tasks.start_soon(self._bring_back, key, coming)

    async def _bring_back(self, key: Key, coming: Coming) -> None:
        """Wake or load it; whoever is there already is only asked whether it is well."""
        try:
            lease = self._supervisor.lease(coming.model, keep_alive=coming.keep_alive)
            try:
                upstream = await lease.granted()
                upstream.suspect()
            finally:
                lease.release()
        except HyperLlamaError as failure:
            log.error("%s is not back after the sleep: %s", coming.model.name, failure)
        self._back.pop(key, None)


def _clock() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _kept(parameters: Path) -> bool:
    """Whether the NVIDIA driver saves the memory of GPUs: its module parameter NVreg_PreserveVideoMemoryAllocations."""
    try:
        lines = parameters.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    stated = dict(line.split(":", 1) for line in lines if ":" in line)
    return stated.get("PreserveVideoMemoryAllocations", "").strip() == "1"
