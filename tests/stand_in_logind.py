"""A system bus of its own for a test, and a logind on it: takes delay locks, tells of sleep, notices locks given back.

The bus is the real dbus-daemon; the logind is a few lines over jeepney, in a thread.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jeepney
from jeepney.fds import FileDescriptor
from jeepney.io import blocking

from hyperllamad import logind as product

DAEMON = shutil.which("dbus-daemon")
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow user="*"/><allow own="*"/>
    <allow send_type="method_call"/><allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/><allow receive_type="method_return"/>
    <allow receive_type="error"/><allow receive_type="signal"/>
  </policy>
</busconfig>
"""


@contextmanager
def system_bus(directory: Path) -> Iterator[str]:
    """The address of a bus on which nobody is yet."""
    path, config = directory / "bus", directory / "bus.conf"
    config.write_text(_CONFIG.format(path=path))
    assert DAEMON is not None
    command = [DAEMON, f"--config-file={config}", "--nofork", "--print-address=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bus:
        try:
            assert bus.stdout is not None
            assert bus.stdout.readline(), "it listens"
            yield f"unix:path={path}"
        finally:
            bus.terminate()


class Logind:
    """The manager's side.  `refuses`: polkit does not allow locks."""

    def __init__(self, address: str, *, delay: float = 5.0, refuses: bool = False, name: str = product.NAME) -> None:
        self._bus = blocking.open_dbus_connection(address, enable_fds=True)
        self._delay = delay
        self._refuses = refuses
        self._locks: list[int] = []
        self.asked: list[tuple[str, ...]] = []  # of Inhibit: what, who, why, mode
        self._stop = os.pipe()
        blocking.Proxy(jeepney.message_bus, self._bus).RequestName(name)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def sleeps(self, *, is_about_to: bool) -> None:
        """Tell everybody."""
        emitter = jeepney.DBusAddress(product.PATH, interface=product.MANAGER)
        self._bus.send(jeepney.new_signal(emitter, product.SIGNAL, "b", (is_about_to,)))

    def held(self) -> int:
        """Locks that were not given back: whoever holds one keeps the other end of a pipe open."""
        poll = select.poll()
        for lock in self._locks:
            poll.register(lock, 0)
        return len(self._locks) - len(poll.poll(0))

    def close(self) -> None:
        os.write(self._stop[1], b"x")
        self._thread.join(5)
        self._bus.close()
        for descriptor in (*self._locks, *self._stop):
            os.close(descriptor)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._bus.sock, self._stop[0]], [], [])
            if self._stop[0] in ready:
                return
            try:
                self._answer(self._bus.receive(timeout=1))
            except (TimeoutError, OSError):
                return

    def _answer(self, message: Any) -> None:
        if message.header.message_type is not jeepney.MessageType.method_call:
            return
        member = message.header.fields[jeepney.HeaderFields.member]
        given = None
        if member == "Get":
            reply = jeepney.new_method_return(message, "v", (("t", int(self._delay * 1e6)),))
        elif self._refuses:
            reply = jeepney.new_error(message, "org.freedesktop.DBus.Error.AccessDenied", "s", ("Access denied",))
        else:
            self.asked.append(message.body)
            mine, theirs = os.pipe()
            self._locks.append(mine)
            given = FileDescriptor(theirs)
            reply = jeepney.new_method_return(message, "h", (given,))
        self._bus.send(reply)
        if given is not None:
            given.close()


@contextmanager
def logind(address: str, **options: Any) -> Iterator[Logind]:
    """Somebody who says that it is logind."""
    manager = Logind(address, **options)
    try:
        yield manager
    finally:
        manager.close()
