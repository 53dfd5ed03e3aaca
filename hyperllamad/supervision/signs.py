"""What makes an engine that serves sick: it stands still though somebody waits, or a process it needs has died.

Must not know what is done with a sick engine, nor why it may be on its way out already.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.to_thread

from hyperllamad.supervision import procfs, stacks, vital
from hyperllamad.supervision.endings import MemoryKills
from hyperllamad.supervision.health import Health
from hyperllamad.supervision.plan import Plan
from hyperllamad.supervision.probe import Pace
from hyperllamad.supervision.upstream import Upstream


class Signs:
    """Of one engine; watch() once it serves."""

    def __init__(
        self,
        plan: Plan,
        pace: Pace,
        memory_kills: MemoryKills,
        *,
        capture: Callable[[str], None] | None,
        asked: Callable[[], bool],
        sick: Callable[[str, str], None],
    ) -> None:
        """`sick` is told a line for the log and the sentence that clients hear; never once `asked` says it is to end.

        `capture` is given the stacks of one that stands still, line by line; None = nobody wants them.
        """
        self._plan = plan
        self._pace = pace
        self._memory_kills = memory_kills
        self._capture = capture
        self._asked = asked
        self._sick = sick

    async def watch(self, upstream: Upstream, guard: int, pid: int) -> None:
        """Until cancelled; `guard` is the process above all of the engine's, `pid` its main one."""
        async with anyio.create_task_group() as signs:
            signs.start_soon(self._watch_health, upstream, guard)
            signs.start_soon(self._watch_vital, guard, pid)

    async def _watch_health(self, upstream: Upstream, guard: int) -> None:
        def processes() -> list[int]:
            return procfs.descendants(guard, procfs.processes())

        why = await Health(upstream, processes, self._pace).wait_sick()
        if self._capture is not None and not self._asked():
            for line in await anyio.to_thread.run_sync(lambda: list(stacks.of(processes()))):
                self._capture(line)
        if not self._asked():
            self._sick(why, f"{self._plan.engine.title} {why}")

    async def _watch_vital(self, guard: int, pid: int) -> None:
        engine = self._plan.engine
        lost = await vital.wait_lost(guard, engine.vital)
        # Whoever ends because the whole engine ends, or its guard did, is no news: that will be heard of, and better.
        if not self._asked() and all(_lives(each) for each in (guard, pid)):
            why = "perhaps because the machine ran out of memory" if self._memory_kills else "not for lack of memory"
            self._sick(f"has lost its worker process {lost}", f"{engine.title}'s worker process died, {why}")


def _lives(pid: int) -> bool:
    found = procfs.process(pid)
    return found is not None and not found.zombie
