"""How much one client may ask of the server: requests at once, tokens a minute.  Pure; times are seconds.

Tokens are known only when an answer is over, so they are paid afterwards: a client whose account is in credit is let
in, however much it will use, and one in debt waits until the minute's allowance has paid the debt off.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from hyperllamad.core.errors import TooManyRequestsError

_WEIGHT = 0.2  # of the newest request in the usual duration
_A_TOKEN = 0.999  # after hours that floating-point numbers have added up: who waited as told must not wait again


class Limits(NamedTuple):
    """0 = no limit."""

    concurrent: int = 0  # requests at once
    tokens_per_minute: int = 0  # read and written


class Quota:
    """What one client has under way and how much of its minute is left."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._since: dict[int, float] = {}  # of each request under way
        self._usual = 0.0  # seconds a request takes
        self._left = math.inf  # tokens; below 0 is debt
        self._at = 0.0  # when that was true

    @property
    def running(self) -> int:
        """Requests under way."""
        return len(self._since)

    def enter(self, limits: Limits, now: float) -> int:
        """A request begins; what comes back is for `leave`.  Raises TooManyRequestsError."""
        self._refill(limits, now)
        if limits.tokens_per_minute and self._left < _A_TOKEN:
            wait = (1 - self._left) * 60 / limits.tokens_per_minute
            raise TooManyRequestsError(f"more than {limits.tokens_per_minute} tokens in a minute", "tokens", wait)
        if limits.concurrent and self.running >= limits.concurrent:
            # A guess, and the best there is: when the oldest one will have taken as long as they usually do.
            wait = self._usual - (now - min(self._since.values()))
            raise TooManyRequestsError(f"more than {limits.concurrent} requests at once", "requests", wait)
        number = next(self._numbers)
        self._since[number] = now
        return number

    def leave(self, number: int, tokens: int, now: float) -> None:
        """The request is over and took so many tokens; again does nothing."""
        if (since := self._since.pop(number, None)) is None:
            return
        took = now - since
        self._usual += (took - self._usual) * (_WEIGHT if self._usual else 1.0)
        self._left -= tokens

    def _refill(self, limits: Limits, now: float) -> None:
        """The account grows evenly, and never beyond one minute's allowance."""
        allowance = limits.tokens_per_minute or math.inf
        grown = self._left + (now - self._at) * allowance / 60 if math.isfinite(allowance) else math.inf
        self._left, self._at = min(grown, allowance), now
