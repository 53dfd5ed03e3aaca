"""White space around thoughts: dropped however the engine cuts it up, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from hyperllamad.front.engine_wire import Choice, Chunk, Delta, Logprobs
from hyperllamad.front.thoughts import ThoughtFilter
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Stream, chat_event, short_chat


def told(*deltas: dict[str, str]) -> list[tuple[str, str]]:
    """(thought, text) of every chunk that gets through."""
    through = ThoughtFilter()
    found = [through.chunks([Chunk(choices=[Choice(delta=Delta(**delta))])]) for delta in deltas]
    ends = [chunk.choices[0].delta for chunks in found for chunk in chunks]
    return [(end.reasoning or "", end.content or "") for end in ends if end]


def thought(text: str) -> dict[str, str]:
    return {"reasoning_content": text}


def text(text: str) -> dict[str, str]:
    return {"content": text}


@pytest.mark.parametrize(
    ("deltas", "through"),
    [
        ([thought("\n"), thought("\nLet"), thought("\nme\n"), text("\n"), text("\nYes\n"), text(" .")],
         [("Let", ""), ("\nme\n", ""), ("", "Yes\n"), ("", " .")]),
        ([thought("Let"), text("Yes"), text("\n"), text("No")], [("Let", ""), ("", "Yes"), ("", "\n"), ("", "No")]),
        ([text("\n\nYes")], [("", "\n\nYes")]),  # no thought: the text is the model's own
        ([text(" "), text("Yes")], [("", " "), ("", "Yes")]),
        ([{"reasoning": " a", "content": " b"}], [("a", "b")]),
    ],
)  # fmt: skip
def test_white_space(deltas: list[dict[str, str]], through: list[tuple[str, str]]) -> None:
    assert told(*deltas) == through


def test_a_token_with_logprobs_stays() -> None:
    through = ThoughtFilter()
    through.chunks([Chunk(choices=[Choice(delta=Delta(reasoning="a"))])])
    blank = Chunk(choices=[Choice(delta=Delta(content="\n"), logprobs=Logprobs(content=[]))])
    assert through.chunks([blank]) == [blank]


async def test_every_dialect_tells_it_so(house: OpenHouse) -> None:
    script = [chat_event(reasoning_content="\nHm\n"), *short_chat("\n\nYes")]
    hi: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "stream": False, "max_tokens": 9}
    async with house(lambda _: Stream(script)) as h:
        native = (await h.client.post("/api/chat", {"model": "mk"} | hi)).json()["message"]
        assert (native["thinking"], native["content"]) == ("Hm\n", "Yes")
        chat = (await h.client.post("/v1/chat/completions", {"model": "mk"} | hi)).json()["choices"][0]["message"]
        assert (chat["reasoning"], chat["content"]) == ("Hm\n", "Yes")
        blocks = (await h.client.post("/v1/messages", {"model": "mk"} | hi)).json()["content"]
        assert [block.get("thinking") or block["text"] for block in blocks] == ["Hm\n", "Yes"]
