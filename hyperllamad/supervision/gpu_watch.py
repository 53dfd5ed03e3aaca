"""Keeps true what is known of GPUs: waits for a driver that comes late, listens for errors, looks until all is well.

Owns the reading of core/gpu_health.py's object and the words of the log; must not know instances: who wants to act on
news sets `on_news`.  While all GPUs are well, or none is expected, nothing here wakes up but the driver's own events.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio

from hyperllamad.core.gpu_health import RECOVERY_CHANGED, GpuHealth, GpuNews, Known, Verdict, Xid
from hyperllamad.core.machine import Gpus
from hyperllamad.engines import host
from hyperllamad.supervision import xids
from hyperllamad.supervision.gpus import NO_DRIVER, GpuReader

log = logging.getLogger("hyperllamad.supervision")

AT_START = 1.0  # seconds between two looks while the start waits for the driver
LATER = 5.0  # seconds between two looks while something is missing


class GpuWatch:
    """look() or wait_arrived() at start, then run() for ever; verdict() at any time."""

    def __init__(
        self,
        reader: GpuReader,
        expected: Callable[[], bool],
        *,
        device: Callable[[], str] = host.device,
        listen: Callable[[Callable[[Xid], None]], Awaitable[bool]] = xids.listen,
        pause: float = LATER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`expected` says whether an engine is installed for GPUs, `device` what the device files let hope for."""
        self.on_news: Callable[[GpuNews], None] = lambda _: None
        self._reader = reader
        self._expected = expected
        self._device = device
        self._listen = listen
        self._pause = pause
        self._clock = clock
        self._health = GpuHealth()
        self._nodes = device() == "cuda"
        self._library = True
        self._uneasy = anyio.Event()
        self._there = anyio.Event()
        self._listening = anyio.CancelScope()
        self._patient = False  # what is away may only take its time
        reader.on_read = self._read

    # -- what is known ---------------------------------------------------------------------------------------------

    def verdict(self) -> Verdict:
        """What models may count on now."""
        found = self._health.verdict(expected=self._expected(), nodes=self._nodes, library=self._library)
        if found.missing:
            self._uneasy.set()  # an engine for GPUs may have been installed just now: from here on, look for them
        return found

    @property
    def known(self) -> tuple[Known, ...]:
        """Every GPU that was read at least once."""
        return tuple(self._health.gpus.values())

    def problems(self) -> tuple[str, ...]:
        """Sentences for people: GPUs that are not used and why, or that there is none where one is expected."""
        gone = tuple(str(GpuNews(gpu, gpu.problem)) for gpu in self._health.problems)
        missing = self.verdict().missing
        return gone or ((f"no GPU can be used: {missing}",) if missing else ())

    # -- tasks -----------------------------------------------------------------------------------------------------

    async def wait_arrived(self, within: float, tell: Callable[[str], None]) -> None:
        """Until a GPU is there, or none is expected, or `within` seconds are over; `tell` hears what is waited for."""
        deadline = time.monotonic() + within
        told = False
        while await self._missing() and time.monotonic() < deadline:
            if not told:
                sentence = f"waiting up to {within:.0f} s for a GPU: {self.verdict().missing}"
                log.warning(sentence)
                tell(sentence)
                told = True
            await anyio.sleep(min(AT_START, self._pause))
        if missing := self.verdict().missing:
            log.error("no GPU can be used: %s; looking for one all the while", missing)
        elif told:
            log.info("the GPU has come")

    async def _missing(self) -> bool:
        await self._reader.read()
        return bool(self.verdict().missing)

    async def recover(self, within: float) -> None:
        """Until every GPU that was there is read again, or `within` seconds are over; only then it counts as away."""
        deadline = time.monotonic() + within
        self._patient = True
        try:
            while self._patient and time.monotonic() < deadline:
                await self._reader.read()
                if self._patient:
                    await anyio.sleep(min(AT_START, self._pause))
        finally:
            self._patient = False
        if any(not gpu.problem for gpu in self.known):
            await self.look()

    async def run(self) -> None:
        """For ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look_while_uneasy)
            tasks.start_soon(self._hear_errors)

    async def look(self) -> None:
        """Read the GPUs now."""
        await self._reader.read()

    async def _look_while_uneasy(self) -> None:
        while True:
            while self.problems() or self._health.unsure:
                await anyio.sleep(self._pause)
                await self.look()
            self._uneasy = anyio.Event()
            await self._uneasy.wait()
            await self.look()

    async def _hear_errors(self) -> None:
        """Whenever there is a GPU; anew when one has come back, or its driver was loaded again."""
        while True:
            await self._there.wait()
            self._there = anyio.Event()  # set by the next reading that finds one
            with anyio.CancelScope() as self._listening:
                if not await self._listen(self._heard):
                    return
            await anyio.sleep(self._pause)
            self._uneasy.set()

    # -- what is heard ---------------------------------------------------------------------------------------------

    def _heard(self, error: Xid) -> None:
        news = self._health.report(error)
        if error.number != RECOVERY_CHANGED and not news:
            which = next((gpu.title for gpu in self.known if gpu.uuid == error.uuid), "a GPU")
            log.warning(
                "the driver reports Xid %d on %s: the engine that caused it is expected to end", error.number, which
            )
        self._tell(news)
        self._uneasy.set()

    def _read(self, seen: Gpus) -> None:
        if self._patient:
            there = {gpu.uuid for gpu in seen.devices}
            self._patient = any(not gpu.away and gpu.uuid not in there for gpu in self.known)
            if self._patient:
                return
        self._nodes = self._device() == "cuda"
        self._library = seen.problem != NO_DRIVER
        self._tell(self._health.read(seen, self._clock()))
        if self._health.problems or self._health.unsure:
            self._uneasy.set()
        if any(not gpu.away for gpu in self.known):
            self._there.set()

    def _tell(self, news: list[GpuNews]) -> None:
        for one in news:
            log.log(logging.ERROR if one.problem else logging.INFO, "%s", one)
            if not one.problem:
                self._listening.cancel()  # its errors are not among those that are listened for
            self.on_news(one)
