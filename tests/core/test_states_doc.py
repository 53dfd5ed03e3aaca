"""docs/states.md says what the table says."""

from __future__ import annotations

from hyperllamad.core.instance import State
from tests.core.states_doc import MEANING, PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.core.states_doc`"


def test_every_state_is_explained() -> None:
    assert MEANING.keys() == set(State)
