"""Ways in which processes of an engine die, and a stream that may break off."""

from __future__ import annotations

import os
import signal

from hyperllamad.core.models import Kind
from hyperllamad.supervision import procfs
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.supervision.upstream import BASE, Upstream


async def stream(upstream: Upstream, words: int = 10, seen: list[bytes] | None = None) -> list[bytes]:
    """The events of a streamed answer; `seen` has them even if it breaks off."""
    seen = [] if seen is None else seen
    async with upstream.session.post(BASE + Kind.CHAT, json={"stream": True, "words": words}) as reply:
        async for line in reply.content:
            if line.strip():
                seen.append(line)
    return seen


def guard_of(supervisor: Supervisor) -> int:
    (life,) = supervisor._crew.lives.values()
    return life.guard


def kill_main(supervisor: Supervisor) -> None:
    os.kill(supervisor.rows()[0].pid, signal.SIGKILL)


def kill_worker(supervisor: Supervisor) -> None:
    main = supervisor.rows()[0].pid
    os.kill(procfs.descendants(main, procfs.processes())[0], signal.SIGKILL)


def kill_guard(supervisor: Supervisor) -> None:
    os.kill(guard_of(supervisor), signal.SIGKILL)
