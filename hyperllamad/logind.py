"""systemd-logind, as far as sleep goes: says when the machine is about to sleep and when it is back, and waits for us.

org.freedesktop.login1(5): a *delay* lock holds sleep up until it is given back, but no longer than InhibitDelayMaxSec=.
Speaks D-Bus with jeepney, a package that may be missing; then, and where no bus or no logind is, nothing is heard of
sleep and everything else works.  Must not know what is done before sleep.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.to_thread

log = logging.getLogger("hyperllamad")

NAME, PATH, MANAGER = "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"
SIGNAL = "PrepareForSleep"
DEFAULT_DELAY = 5.0  # seconds; logind.conf(5), InhibitDelayMaxSec=
PATIENCE = 10.0  # seconds for an answer; polkit may have to be started for it
WHO, WHY = "hyperllamad", "models leave the GPUs, so that they are whole afterwards"


class NoLogindError(Exception):
    """Nobody tells us of sleep; the message is a clause that says why."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        """`lasting`: asking again later would not help."""
        super().__init__(why)
        self.lasting = lasting


class Logind:
    """A connection to the system bus; use `connected()`."""

    def __init__(self, bus: Any, jeepney: Any) -> None:
        self._bus = bus  # jeepney's blocking connection: asked in threads, one question at a time
        self._jeepney = jeepney
        self._manager = jeepney.DBusAddress(PATH, bus_name=NAME, interface=MANAGER)
        self._heard: list[bool] = []
        self._lock: int | None = None  # a descriptor: closing it lets the machine sleep
        self._keeping = threading.Lock()
        self._over = False

    # -- the lock --------------------------------------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        """The machine waits for us before it sleeps."""
        return self._lock is not None

    async def delay(self) -> float:
        """Seconds that it waits."""
        try:
            ((_, value),) = await self._ask(self._jeepney.Properties(self._manager).get("InhibitDelayMaxUSec"))
            return float(value) / 1e6
        except (NoLogindError, ValueError, TypeError):
            return DEFAULT_DELAY

    async def hold(self) -> None:
        """Make it wait from now on; raises NoLogindError when that is refused."""
        self.let_go()
        call = self._jeepney.new_method_call(self._manager, "Inhibit", "ssss", ("sleep", WHO, WHY, "delay"))
        await self._work(lambda: self._keep(*self._answer(call)))

    def let_go(self) -> None:
        """It need not wait for us any more."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def end(self) -> None:
        """The same for ever: a lock whose answer is still on its way is given back when it comes."""
        with self._keeping:
            self._over = True
        self.let_go()

    def _keep(self, descriptor: Any) -> None:
        """In the thread that hears of it: whoever asked may have been cancelled in the meantime."""
        with self._keeping:
            if self._over:
                descriptor.close()
            else:
                self._lock = descriptor.to_raw_fd()

    # -- the signal ------------------------------------------------------------------------------------------------

    async def subscribe(self) -> None:
        """Ask the bus for the signal; from logind alone, whoever else may send one of that name."""
        rule = self._jeepney.MatchRule(type="signal", sender=NAME, interface=MANAGER, member=SIGNAL, path=PATH)
        await self._ask(self._jeepney.message_bus.AddMatch(rule))

    async def next(self) -> bool:
        """The next news: True = is about to sleep, False = is back.  Raises NoLogindError when the bus has gone."""
        while not self._heard:
            await anyio.wait_readable(self._bus.sock)
            await self._work(self._take)
        return self._heard.pop(0)

    # -- messages --------------------------------------------------------------------------------------------------

    async def _ask(self, call: Any) -> tuple[Any, ...]:
        body: tuple[Any, ...] = await self._work(lambda: self._answer(call))
        return body

    async def _work(self, question: Callable[[], Any]) -> Any:
        """In a thread; everything that can go wrong on a bus as one error."""
        try:
            return await anyio.to_thread.run_sync(question, abandon_on_cancel=True)
        except (OSError, self._jeepney.wrappers.DBusErrorResponse) as failure:
            raise _no_logind(failure) from failure

    def _answer(self, call: Any) -> tuple[Any, ...]:
        """What came back.  Signals that come in between are kept: jeepney would hand them to nobody."""
        serial = next(self._bus.outgoing_serial)
        self._bus.send(call, serial=serial)
        while True:
            message = self._bus.receive(timeout=PATIENCE)
            if message.header.fields.get(self._jeepney.HeaderFields.reply_serial) == serial:
                body: tuple[Any, ...] = self._jeepney.wrappers.unwrap_msg(message)
                return body
            self._note(message)

    def _take(self) -> None:
        """Everything that has come."""
        with suppress(TimeoutError):
            while True:
                self._note(self._bus.receive(timeout=0))

    def _note(self, message: Any) -> None:
        fields, kinds = message.header.fields, self._jeepney
        signal = message.header.message_type is kinds.MessageType.signal
        if signal and fields.get(kinds.HeaderFields.member) == SIGNAL and len(message.body) == 1:
            self._heard.append(bool(message.body[0]))


@asynccontextmanager
async def connected(address: str = "SYSTEM") -> AsyncIterator[Logind]:
    """Connected and told of sleep, the lock not yet taken; raises NoLogindError.  At the end the lock is given back."""
    try:
        jeepney = importlib.import_module("jeepney")
        blocking = importlib.import_module("jeepney.io.blocking")
        importlib.import_module("jeepney.wrappers")
    except ImportError as failure:
        raise NoLogindError("the Python package jeepney is not installed", lasting=True) from failure
    try:
        bus = await anyio.to_thread.run_sync(lambda: blocking.open_dbus_connection(address, enable_fds=True))
    except (OSError, ValueError, RuntimeError, jeepney.wrappers.DBusErrorResponse) as failure:
        raise _no_logind(failure) from failure
    logind = Logind(bus, jeepney)
    try:
        await logind.subscribe()
        yield logind
    finally:
        logind.end()
        with suppress(OSError):
            bus.sock.shutdown(socket.SHUT_RDWR)  # a thread that waits for an answer hears of it
        bus.close()


def _no_logind(failure: Exception) -> NoLogindError:
    if isinstance(failure, FileNotFoundError | ConnectionRefusedError):
        return NoLogindError("there is no system bus", lasting=True)
    if isinstance(failure, TimeoutError):
        return NoLogindError("the system bus does not answer")
    name = getattr(failure, "name", "")  # of an error that came over the bus
    text = " ".join(str(part) for part in getattr(failure, "data", ())) or str(failure) or type(failure).__name__
    return NoLogindError(text, lasting=name.endswith((".ServiceUnknown", ".NameHasNoOwner")))
