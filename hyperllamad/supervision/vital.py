"""Notices the death of a process that an engine cannot live without, the moment it dies.

MAX needs three seconds to notice that its worker is gone, and answers its health check all the while.  Knows processes;
must not know what follows from their death.
"""

from __future__ import annotations

import contextlib
import os
import re

import anyio

from hyperllamad.supervision import procfs


async def wait_lost(guard: int, pattern: str) -> int:
    """The number of the first process to end, of those below `guard` now whose command line matches `pattern`.

    Waits for ever when there are none; costs nothing while nothing happens.
    """
    first = 0
    async with anyio.create_task_group() as watches:

        async def watch(pid: int, held: int) -> None:
            nonlocal first
            await anyio.wait_readable(held)  # a pidfd is readable once its process has ended
            first = first or pid
            watches.cancel_scope.cancel()

        with contextlib.ExitStack() as open_descriptors:
            for pid in _matching(guard, pattern):
                with contextlib.suppress(ProcessLookupError):
                    held = os.pidfd_open(pid)
                    open_descriptors.callback(os.close, held)
                    watches.start_soon(watch, pid, held)
            await anyio.sleep_forever()
    return first


def _matching(guard: int, pattern: str) -> list[int]:
    if not pattern:
        return []
    below = procfs.descendants(guard, procfs.processes())
    return [pid for pid in below if re.search(pattern, procfs.command_line(pid))]
