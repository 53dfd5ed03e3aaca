"""Helpers about real processes, for tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from hyperllamad.supervision import procfs

PATIENCE = 10.0  # seconds for something outside our control


def alive(pid: int) -> bool:
    found = procfs.process(pid)
    return found is not None and not found.zombie


def mine() -> set[int]:
    """Everybody below the test's own process, zombies included."""
    return set(procfs.descendants(os.getpid(), procfs.processes()))


def descriptors() -> set[str]:
    """Open files of the test's own process."""
    return {entry.name for entry in os.scandir("/proc/self/fd")}


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def find(text: str) -> set[int]:
    """Everybody alive whose command line holds `text`, but for the test itself."""
    return {p.pid for p in procfs.processes() if not p.zombie and p.pid != os.getpid() and text in command(p.pid)}


async def wait_for(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Poll something no event tells of; fails the test when it does not come true."""
    with anyio.fail_after(patience):
        while not condition():
            await anyio.sleep(0.005)


def wait_for_blocking(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.005)
