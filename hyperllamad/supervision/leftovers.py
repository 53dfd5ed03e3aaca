"""What lives leave behind in the daemon's own memory: found and freed soon after their end.

Must not know what a life is.  A task of anyio that was cancelled is part of a circle: its error holds the traceback,
that the frame of the task's end, and that the error.  Through the frames it keeps the whole life, with its session,
its tail of lines and the text of its requests: some 500 objects, 100 KiB.  Python looks for circles among what is old
only after 70,000 further objects were made; until then a hundred lives would lie there, and the heap that has grown by
them is not given back.

The C library keeps what was freed in the middle of its heaps: pages that were touched once stay, and more of them with
every hour.  It is asked to give them back (malloc_trim(3), of glibc; 0.1 ms).
"""

from __future__ import annotations

import ctypes
import gc

import anyio

PAUSE = 0.1  # seconds from an end to the look: those that end together are found together
WORTH = 20_000  # objects that are looked at for each life that has ended: about five milliseconds

_trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)


class Leftovers:
    """run() once; more() whenever a life is over.  Nobody is woken while there is nothing to find.

    A look is at everything that was made since the start, and all streams stand still meanwhile: 3 ms when there is
    little, 100 ms with a thousand connections.  Then it waits until more lives have ended.
    """

    def __init__(self) -> None:
        self._news = anyio.Event()
        self._ended = 0  # since the last look

    def more(self) -> None:
        """There will be some in a moment."""
        self._ended += 1
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            await anyio.sleep(PAUSE)
            self._news = anyio.Event()
            if len(gc.get_objects()) <= self._ended * WORTH:  # what was imported is frozen, and not among them
                self._ended = 0
                gc.collect()
                _trim(0)
