"""What systemd is told of the daemon: its state, and that it lives.  Owns the words of sd_notify(3).

Decides nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import sdnotify


class Notifier:
    """sd_notify(3); does nothing when systemd did not ask ($NOTIFY_SOCKET is not set)."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._systemd = sdnotify.SystemdNotifier() if environ.get("NOTIFY_SOCKET") else None
        self.watchdog = _watchdog(environ) if self._systemd is not None else 0.0  # seconds it waits for us; 0 = not

    @property
    def heard(self) -> bool:
        """Somebody listens."""
        return self._systemd is not None

    def _tell(self, state: str) -> None:
        if self._systemd is not None:
            self._systemd.notify(state)

    def ready(self) -> None:
        """Requests are answered."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """A new configuration is being taken over; ready() says that it is done."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._tell("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """The start or the end goes on, and may take so long from now."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")


def _watchdog(environ: Mapping[str, str]) -> float:
    """sd_watchdog_enabled(3): meant for this process, or for whoever reads it."""
    limit, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    ours = not pid or pid == str(os.getpid())
    return int(limit) / 1e6 if limit.isdecimal() and ours else 0.0
