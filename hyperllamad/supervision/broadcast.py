"""One sender, any number of watchers; a watcher that does not keep up is dropped, never waited for."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio

T = TypeVar("T")

BEHIND = 1024  # items a watcher may be behind


class Watch(Generic[T]):
    """Items as they are sent, as an async iterator; use it as a context manager, so that it ends with its reader."""

    def __init__(self, broadcast: Broadcast[T]) -> None:
        self._broadcast = broadcast
        self._items: deque[T] = deque()
        self._news = anyio.Event()
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._broadcast.forget(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        return self._items.popleft()

    def put(self, item: T) -> bool:
        """For the sender; False when the watcher is too far behind."""
        if len(self._items) >= BEHIND:
            return False
        self._items.append(item)
        self._news.set()
        return True

    def end(self) -> None:
        """For the sender: nothing more will come."""
        self._ended = True
        self._news.set()


class Broadcast(Generic[T]):
    """Sends every item to everybody who watches at that moment."""

    def __init__(self) -> None:
        self._watches: list[Watch[T]] = []

    def watch(self) -> Watch[T]:
        """Items from now on, until close(), or until its reader is too far behind."""
        watch = Watch(self)
        self._watches.append(watch)
        return watch

    def send(self, item: T) -> None:
        for watch in [watch for watch in self._watches if not watch.put(item)]:
            watch.end()
            self.forget(watch)

    def forget(self, watch: Watch[T]) -> None:
        """Send it nothing more."""
        if watch in self._watches:
            self._watches.remove(watch)

    def close(self) -> None:
        """Let every watcher read what was sent, and then end."""
        for watch in self._watches:
            watch.end()
        self._watches.clear()
