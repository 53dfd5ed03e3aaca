"""White space around a thought taken out of an answer, as Ollama does (spec 5.4): engines keep what stood by the tags.

Knows chunks of an engine's answer; must not know which engine it was, nor any dialect.
"""

from __future__ import annotations

from hyperllamad.front.engine_wire import Choice, Chunk, Delta
from hyperllamad.front.stops import says_something


class ThoughtFilter:
    """Drops white space before the thought, and between it and the answer.  An answer without a thought is let be."""

    def __init__(self) -> None:
        self._thinking = False  # something of a thought was seen
        self._said = False  # something of the answer was seen, behind the thought
        self._open = True  # the next of what is being told may begin with white space to drop

    def chunks(self, chunks: list[Chunk]) -> list[Chunk]:
        """The same chunks; those that are left with nothing to say are gone."""
        if self._said:
            return chunks
        for chunk in chunks:
            for choice in chunk.choices[:1]:
                if choice.delta is not None:
                    self._delta(choice.delta)
        return [chunk for chunk in chunks if says_something(chunk) or _counts(chunk.choices[0])]

    def _delta(self, delta: Delta) -> None:
        if thought := delta.reasoning or delta.reasoning_content:
            delta.reasoning, delta.reasoning_content = self._begun(thought) or None, None
            self._thinking = True
        if delta.content:
            if self._thinking:
                delta.content = delta.content.lstrip() or None
            self._said = self._said or bool(delta.content)

    def _begun(self, thought: str) -> str:
        if self._open:
            thought = thought.lstrip()
            self._open = not thought
        return thought


def _counts(choice: Choice) -> bool:
    return choice.logprobs is not None
