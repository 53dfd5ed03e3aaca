"""Which answers may go on on another engine, and with which request."""

from __future__ import annotations

from typing import Any

import pytest

from hyperllamad.core.models import Kind
from hyperllamad.front import resumable
from hyperllamad.front.engine_wire import Choice, Chunk, Delta
from hyperllamad.front.resumable import Seen

HI = {"messages": [{"role": "user", "content": "hi"}]}
IMAGE = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"temperature": 0, "seed": 7},
        {"top_k": 1, "seed": 7},
        {"top_p": 0, "seed": 7},
        {"temperature": 1.0},
        {"stop": ["x"], "logit_bias": {"1": 2}, "repetition_penalty": 1.1},
        {"presence_penalty": 0.0, "logprobs": False},
    ],
)
def test_these_go_on(body: dict[str, Any]) -> None:
    assert resumable.refusal(Kind.CHAT, HI | body) == ""


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "form"),
        ({"logprobs": True}, "probabilities"),
        ({"logprobs": 0}, "probabilities"),
        ({"seed": 7}, "seed"),
        ({"seed": 7, "temperature": 0.1}, "seed"),
        ({"presence_penalty": 0.1}, "penalised"),
        ({"frequency_penalty": -0.1}, "penalised"),
        ({"suffix": "x"}, "gap"),
        ({"echo": True}, "repeats"),
        (IMAGE, "images"),
    ],
)
def test_these_do_not(body: dict[str, Any], why: str) -> None:
    assert why in resumable.refusal(Kind.CHAT, HI | body)


def test_the_request_that_goes_on() -> None:
    body = HI | {"temperature": 0, "stop": ["x"], "max_tokens": 10, "min_tokens": 4, "stream": True, "model": "m"}
    assert resumable.continued(body, [1, 2], [3, 4, 5], 100) == {
        "temperature": 0,
        "stop": ["x"],
        "stream": True,
        "min_tokens": 1,
        "max_tokens": 7,
        "prompt": [1, 2, 3, 4, 5],
    }


@pytest.mark.parametrize(("limit", "context", "left"), [(3, 100, None), (None, 100, 97), (200, 100, 97), (4, 100, 1)])
def test_no_more_tokens_than_were_asked_for(limit: int | None, context: int, left: int | None) -> None:
    body = HI if limit is None else HI | {"max_tokens": limit}
    made = resumable.continued(body, [1], [3, 4, 5], context)
    assert (made and made["max_tokens"]) == left


def piece(text: str | None, *ids: int, **delta: Any) -> Chunk:
    return Chunk([Choice(delta=Delta(content=text, **delta), token_ids=list(ids))])


def test_what_was_said_ends_where_the_text_is_whole() -> None:
    """Half a character has tokens and no text yet: whoever goes on writes it again."""
    seen = Seen()
    seen.note(Chunk([Choice(delta=Delta(content=""))], prompt_token_ids=[1, 2]))
    for chunk in (piece("a", 5), piece(None, 6), piece("\u00e9", 7), piece("", 8)):
        seen.note(chunk)
    assert (seen.prompt, seen.ids, seen.texts, seen.more) == ([1, 2], [5, 6, 7], ["a", "\u00e9"], "")


def test_completions_are_noted_too() -> None:
    seen = Seen()
    seen.note(Chunk([Choice(text="a", token_ids=[5], prompt_token_ids=[1])]))
    seen.note(Chunk([]))
    assert (seen.prompt, seen.ids, seen.texts) == ([1], [5], ["a"])


@pytest.mark.parametrize(("delta", "why"), [({"reasoning": "hm"}, "thoughts"), ({"tool_calls": [{}]}, "tool call")])
def test_what_text_alone_cannot_tell(delta: dict[str, Any], why: str) -> None:
    seen = Seen()
    seen.note(piece(None, **delta))
    assert why in seen.more
