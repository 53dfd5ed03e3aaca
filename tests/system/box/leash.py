"""What the box starts ends with it: asked to end, it first ends everything below itself, machines included.

SIGKILL cannot be answered; what was started by start() hears of that from the kernel.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from tests.system.box.shell import CACHE

_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_starting = threading.RLock()  # entered twice by a signal that comes in the middle of a start
_over = threading.Event()


class OverError(Exception):
    """Nothing is started any more: this process was asked to end."""


def hold() -> None:
    """From now on SIGTERM, SIGINT and SIGHUP end everything below this process, and raise SystemExit (128 + number).

    Signals that are ignored stay ignored (nohup).
    """
    for number in _HEARD:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def start(argv: Sequence[str], *, output: IO[bytes] | int, **environ: str) -> subprocess.Popen[bytes]:
    """A machine, which is asked to end (SIGTERM) when the thread that started it has ended.  Raises OverError."""
    with _starting:
        if _over.is_set():
            raise OverError
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *argv],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **environ},
        )  # fmt: skip


def sweep(*names: str) -> None:
    """Remove what killed harnesses left of their machines, below CACHE; names end with the number of who made them."""
    for path in (path for name in names for path in CACHE.glob(name)):
        if not Path(f"/proc/{path.suffix[1:]}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _end(number: int, _: FrameType | None) -> None:
    for heard in _HEARD:
        signal.signal(heard, signal.SIG_IGN)  # a second one must not interrupt what the first one does
    _over.set()
    with _starting:
        _kill_everything_below()
    raise SystemExit(128 + number)


def _kill_everything_below(within: float = 20) -> None:
    """Until everybody has ended.  All are stopped first: a child that is born between two looks would get away."""
    known: set[int] = set()
    while fresh := _below(os.getpid()) - known:
        _signal(fresh, signal.SIGSTOP)
        known |= fresh
    _signal(known, signal.SIGKILL)
    deadline = time.monotonic() + within
    while any(map(_lives, known)) and time.monotonic() < deadline:
        time.sleep(0.05)  # the kernel reports no end of somebody else's child


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _below(pid: int) -> set[int]:
    """The living among its descendants."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found |= _below(child) | ({child} if _lives(child) else set())
    return found


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
