"""What signals mean to the daemon: TERM, INT and USR1 stop it, HUP reloads, unless the terminal has gone.

A second signal to stop does not wait for requests.  USR1 leaves the engines to the next life of the daemon, where
`fleet.adopt_within` allows that.

A terminal that closes sends the same HUP as an administrator.  It is taken for the former only when there was a
terminal at start, HUP was not ignored (nohup), and now there is none.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import anyio.abc

from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad")


@dataclass
class Stop:
    """The end, once it was asked for; `restarts` when whoever asked said that another life will follow."""

    asked: anyio.Event = field(default_factory=anyio.Event)
    restarts: bool = False


async def watch(
    everything: anyio.CancelScope,
    reload: Callable[[], object],
    *,
    task_status: anyio.abc.TaskStatus[Stop],
) -> None:
    """Hands out the Stop that the first signal to stop sets; a second one cancels `everything`."""
    stop = Stop()
    attached = has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as signals:
        task_status.started(stop)
        async for number in signals:
            if number == signal.SIGHUP and not (attached and not has_terminal()):
                if not stop.asked.is_set():
                    reload()
                continue
            if stop.asked.is_set():
                log.warning("told again to stop: not waiting for requests", extra=fields(signal=number.name))
                everything.cancel()
            stop.restarts = number == signal.SIGUSR1
            stop.asked.set()


def has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4)), and it has not hung up."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
