"""Stop strings for an engine that streams the stop text before it stops: whole, split over tokens, nearly one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperllamad.front.engine_wire import Choice, Chunk, Delta
from hyperllamad.front.stops import StopFilter


def said(stops: list[str], pieces: list[str], *, chat: bool = True) -> tuple[str, int]:
    """The text that gets through, and in how many chunks."""
    cut = StopFilter(stops)
    out: list[Chunk] = []
    for number, piece in enumerate(pieces):
        finish = "stop" if number == len(pieces) - 1 else None
        choice = (
            Choice(delta=Delta(content=piece), finish_reason=finish)
            if chat
            else Choice(text=piece, finish_reason=finish)
        )
        out += cut.chunks([Chunk(choices=[choice])])
    texts = [(c.choices[0].delta.content if c.choices[0].delta else c.choices[0].text) or "" for c in out]
    return "".join(texts), len(out)


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize(
    ("stops", "pieces", "text"),
    [
        (["Paris"], ["France is", " Paris"], "France is "),
        (["Paris"], ["is P", "ar", "is", "."], "is "),
        (["Paris"], ["is P", "ort", "."], "is Port."),
        (["Paris"], ["is Par"], "is Par"),
        (["\n\n", "END"], ["a\n", "b E", "N", "D c"], "a\nb "),
        (["aab"], ["aa", "aab"], "aa"),
        ([""], ["a", "b"], "ab"),
    ],
)
def test_text_up_to_the_first_stop(stops: list[str], pieces: list[str], text: str, *, chat: bool) -> None:
    assert said(stops, pieces, chat=chat)[0] == text


def test_a_chunk_left_empty_is_not_sent_but_the_last_one_is() -> None:
    assert said(["Paris"], ["is ", "Paris", " not", ""]) == ("is ", 2)


def test_usage_and_reasoning_pass() -> None:
    cut = StopFilter(["x"])
    usage, thought = Chunk(), Chunk(choices=[Choice(delta=Delta(reasoning="x"))])
    assert cut.chunks([usage, thought]) == [usage, thought]


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1), st.lists(st.text("ab", max_size=8), min_size=1))
def test_however_it_is_split_the_text_is_the_same(stops: list[str], pieces: list[str]) -> None:
    whole = "".join(pieces)
    ends = [whole.find(stop) for stop in stops if stop in whole]
    # The earliest end of a stop string decides where the engine would have stopped; the text before the earliest start
    # among those complete at that moment is what remains.  Character by character is the finest split there is.
    finest = said(stops, list(whole) or [""])[0]
    assert whole.startswith(finest)
    assert bool(ends) == (finest != whole)
    assert len(said(stops, pieces)[0]) <= len(finest) or not ends
