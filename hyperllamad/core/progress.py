"""Is an engine at work, or stuck?  From what was seen of it to a verdict.  Pure: looks go in, a doubt comes out.

An engine that says it is well proves nothing: vLLM's front answers /health with 200 while its core is frozen.  What
counts are pieces of answers.  As long as some come, all is well.  When none come although somebody waits for one,
three things are told apart by what the engine's processes do meanwhile:

1. One of them is stopped (SIGSTOP): no piece can come.
2. None of them computes: it waits for something that will not happen (a deadlock, a lost message).
3. They compute: a long prompt, a compilation, a slow machine, or a loop without an end.  Only time tells, and how much
   is this model's own history: the slowest it has been, several times over.

A doubt is not yet a verdict: supervision asks for one token and looks on, and only if the doubt lasts is it `stuck`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds without a piece, of being looked at, before there is a doubt; `margin` multiplies what was seen."""

    stopped: float = 2.0  # with a process of it stopped
    still: float = 5.0  # while none of its processes computes
    busy: float = 60.0  # while they compute between two pieces; at least
    reading: float = 0.02  # the same for each byte of the prompts it reads, as long as there is no history
    margin: float = 8.0
    answer: float = 4.0  # for one token, once there is a doubt
    # What one look can stand for at most.  More time than that between two looks was not the engine's: the machine
    # slept, or our own process was stopped.
    longest_step: float = 2.0


NORMAL = Limits()
LOOKED_AFTER = 1.0  # seconds without a piece after which it is worth looking at the processes

_LEAST_PROMPT = 1000  # bytes; the time to the first piece of a shorter one says nothing about reading
_FORGETS = 0.99  # with every quiet stretch, so that one bad hour does not count for ever


class Look(NamedTuple):
    """What is seen of an engine at one moment."""

    at: float  # monotonic seconds
    pieces: int  # of answers, that ever came
    expected: bool  # somebody waits for a piece
    unread: int  # bytes of the prompts of requests for which nothing has come yet
    stopped: bool = False  # a process of it is stopped
    computing: bool = True  # or read from disk, since the look before


class Progress:
    """Looks in order of time; `quiet` is how long nothing came, of the time in which somebody looked and waited."""

    def __init__(self, limits: Limits = NORMAL) -> None:
        self.limits = limits
        self.quiet = 0.0
        self.slowest_gap = 0.0  # seconds between two pieces
        self.slowest_byte = 0.0  # seconds for each byte of a prompt
        self.longest_prompt = 0  # bytes, of those that this was learned from
        self._still = 0.0
        self._stopped = 0.0
        self._doubted = 0.0
        self._unread = 0
        self._last: Look | None = None

    def look(self, look: Look) -> str:
        """Take a look; returns why it is doubted that the engine works, "" when it is not."""
        last, self._last = self._last, look
        if last is None or not look.expected:
            self._rest()
        elif look.pieces != last.pieces:
            self._learn()
            self._rest()
        else:
            self._wait(min(look.at - last.at, self.limits.longest_step), look)
        doubt = self._doubt()
        if not doubt:
            self._doubted = 0.0
        return doubt

    @property
    def stuck(self) -> bool:
        """The doubt has lasted as long as one token may take."""
        return self._doubted >= self.limits.answer

    def answered(self) -> None:
        """One token was asked for, and came: the clock starts again."""
        self._rest()

    def allowed(self, unread: int) -> float:
        """Seconds without a piece while it computes, with so many bytes of prompts to read."""
        limits = self.limits
        between = max(limits.busy, limits.margin * self.slowest_gap)
        return between + unread * self._reading(unread)

    def _reading(self, unread: int) -> float:
        """Seconds for a byte of so many.

        What was learned from short prompts says little of a long one: each token looks at all before it, so a prompt
        ten times as long may take a hundred times as long.  But no longer than one of whom nothing is known.
        """
        limits = self.limits
        learned = limits.margin * self.slowest_byte
        if not learned:
            return limits.reading
        longer = max(1.0, unread / self.longest_prompt)
        return max(learned, min(learned * longer, limits.reading))

    def _wait(self, step: float, look: Look) -> None:
        if self._doubt():
            self._doubted += step
        self.quiet += step
        self._unread = max(self._unread, look.unread)
        self._still = 0.0 if look.computing else self._still + step
        self._stopped = self._stopped + step if look.stopped else 0.0

    def _rest(self) -> None:
        self.quiet = self._still = self._stopped = self._doubted = 0.0
        self._unread = 0

    def _learn(self) -> None:
        """A piece came after a quiet stretch: that long it may take."""
        if self._unread >= _LEAST_PROMPT:
            self.slowest_byte = max(self.quiet / self._unread, self.slowest_byte * _FORGETS)
            self.longest_prompt = max(self.longest_prompt, self._unread)
        elif not self._unread:
            self.slowest_gap = max(self.quiet, self.slowest_gap * _FORGETS)

    def _doubt(self) -> str:
        limits = self.limits
        if self._stopped >= limits.stopped:
            return "one of its processes is stopped"
        if self._still >= limits.still:
            return "none of its processes does anything"
        if self.quiet >= self.allowed(self._unread):
            return "that is far longer than it has ever needed"
        return ""
