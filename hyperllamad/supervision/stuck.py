"""Names the processes of an engine that outlive SIGKILL: they sit in a driver, and what they hold cannot be given away.

Must not know what an instance is, nor what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import anyio

STUCK_AFTER = 5.0  # seconds after SIGKILL; giving back a GPU's memory takes up to two


class Stuck:
    """watch() while there may be processes; killed() once they were told to end."""

    def __init__(self, *, on_gpu: bool) -> None:
        self.pids: tuple[int, ...] = ()  # that do not end though they were killed
        self._held = "its GPU stays held" if on_gpu else "its memory stays held"
        self._killed = anyio.Event()

    def killed(self) -> None:
        """From now on it should not be long."""
        self._killed.set()

    async def watch(self, members: Callable[[], Collection[int]], tell: Callable[[str], None]) -> None:
        """Until cancelled; `tell` hears the sentence whenever there are others than before."""
        await self._killed.wait()
        await anyio.sleep(STUCK_AFTER)
        while True:
            before, self.pids = self.pids, tuple(members())
            if self.pids and self.pids != before:
                tell(str(self))
            await anyio.sleep(STUCK_AFTER)

    def __str__(self) -> str:
        """What `status` says of them; "" when there are none."""
        if not self.pids:
            return ""
        which = ", ".join(map(str, self.pids))
        return f"process {which} was killed and does not end, perhaps stuck in a driver: {self._held} until it does"
