"""A request's right to a ready engine: asked for at once, granted or refused later, given back exactly once."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.models import Key, Model
from hyperllamad.supervision.upstream import Upstream


class Lease:
    """Register release() with whatever ends the request before waiting for granted()."""

    def __init__(
        self,
        number: int,
        model: Model,
        key: Key,
        on_release: Callable[[int], None],
        *,
        on_begun: Callable[[int], None] = lambda _: None,
        wanted: Callable[[Key], bool] = lambda _: False,
    ) -> None:
        """`wanted`: somebody waits for leases of that instance to end."""
        self.number = number
        self.model = model
        self.key = key
        self._on_release = on_release
        self._on_begun = on_begun
        self._wanted = wanted
        self._released = False
        self._answered: anyio.Event | None = None  # made by who waits: most are answered at once
        self._answer: Upstream | HyperLlamaError | None = None

    async def granted(self) -> Upstream:
        """Wait for the engine.  Raises the HyperLlamaError with which the request was refused."""
        if self._answer is None:  # else not even a turn of the event loop is waited: the engine is there
            self._answered = self._answered or anyio.Event()
            await self._answered.wait()
        if isinstance(self._answer, Upstream):
            return self._answer
        assert self._answer is not None  # noqa: S101 - answer() sets it before the event
        raise self._answer

    def release(self) -> None:
        """Give it back, granted or not; again does nothing."""
        if not self._released:
            self._released = True
            self._on_release(self.number)

    def begun(self) -> None:
        """The engine has taken the request in, or does not tell; again does nothing."""
        self._on_begun(self.number)

    def wanted(self) -> bool:
        """Somebody waits for it to be given back."""
        return not self._released and self._wanted(self.key)

    def answer(self, answer: Upstream | HyperLlamaError) -> None:
        """For the supervisor: how the wish was decided."""
        self._answer = answer
        if self._answered is not None:
            self._answered.set()
