"""Stop strings cut out of an answer here, for an engine that stops by itself but streams the stop text first.

Knows chunks of an engine's answer; must not know which engine it was, nor any dialect.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyperllamad.front.engine_wire import Choice, Chunk


class StopFilter:
    """Holds back what may be the beginning of a stop string, and everything from the first one on."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(filter(None, stops))
        self._held = ""
        self._hit = False

    def chunks(self, chunks: list[Chunk]) -> list[Chunk]:
        """The same chunks without stop text; those that are left with nothing to say are gone."""
        for chunk in chunks:
            for choice in chunk.choices[:1]:
                self._choice(choice)
        return [chunk for chunk in chunks if says_something(chunk)]

    def _choice(self, choice: Choice) -> None:
        delta = choice.delta
        text = self._feed((delta.content if delta is not None else choice.text) or "")
        if choice.finish_reason:
            text, self._held = text + self._held, ""  # no stop string can begin any more
        if delta is not None:
            delta.content = text or None
        else:
            choice.text = text or None

    def _feed(self, text: str) -> str:
        """What of the text so far may be shown now."""
        if self._hit:
            return ""
        text, self._held = self._held + text, ""
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self._hit = True
            return text[: min(ends)]
        kept = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` could be the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def says_something(chunk: Chunk) -> bool:
    """Whether there is anything in it for a client, or that an answer is finished."""
    if not chunk.choices or (choice := chunk.choices[0]).finish_reason or choice.text:
        return True
    delta = choice.delta
    return delta is not None and bool(delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls)
