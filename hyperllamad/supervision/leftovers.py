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
import time

import anyio

PAUSE = 0.1  # seconds from an end to the look: those that end together are found together
WORTH = 0.01  # seconds that a look may take for each life that has ended

_trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)


class Leftovers:
    """run() once; more() whenever a life is over.  Nobody is woken while there is nothing to find.

    A look is at everything that was made since the start, and all streams stand still meanwhile: 4 ms when there is
    little, 50 ms with a thousand connections.  After a long one it waits until more lives have ended.

    How much there is to look at is not counted with gc.get_objects(): its list holds, for a moment, what another
    thread is making, and a tuple that is held by somebody else cannot be finished (SystemError, "bad argument to
    internal function"; python/cpython#39117).
    """

    def __init__(self) -> None:
        self._news = anyio.Event()
        self._ended = 0  # since the last look
        self._took = 0.0  # seconds of a processor, the last look

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
            if self._took <= self._ended * WORTH:
                self._look()

    def _look(self) -> None:
        began = time.thread_time()
        gc.collect()
        self._took = time.thread_time() - began
        self._ended = 0
        _trim(0)
