"""Server-sent events as a client sees them, and engines that have something to say through them."""

from __future__ import annotations

import json
from typing import Any

from tests.front.http_client import Reply
from tests.front.scripted_engine import DONE, USAGE, Stream, chat_event


def events(reply: Reply) -> list[tuple[str, Any]]:
    """(name, data) of every event; "[DONE]" stays a text.  The body must be nothing but events."""
    assert reply.header("content-type") == "text/event-stream"
    assert reply.body.endswith(b"\n\n")
    found = []
    for block in reply.text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        assert fields.keys() <= {"event", "data"}
        data = fields["data"]
        found.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


def datas(reply: Reply) -> list[Any]:
    return [data for _, data in events(reply)]


def call_piece(index: int, arguments: str, name: str | None = None, call_id: str | None = None) -> bytes:
    """A piece of a tool call, in the form engines stream it."""
    function = {"arguments": arguments} | ({"name": name} if name else {})
    call = {"index": index, "function": function} | ({"id": call_id, "type": "function"} if call_id else {})
    return chat_event(tool_calls=[call])


def calling() -> Stream:
    """Says a word, then calls two tools; the second call's arguments come in pieces and without an id."""
    return Stream(
        [
            chat_event("Let me see."),
            call_piece(0, '{"city":"Paris"}', "weather", "call_one"),
            call_piece(1, '{"zone":', "clock"),
            call_piece(1, '"CET"}'),
            chat_event(finish_reason="tool_calls"),
            USAGE,
            DONE,
        ]
    )


def thinking() -> Stream:
    """Thinks, then answers."""
    return Stream(
        [
            chat_event(reasoning_content="Hm"),
            chat_event(reasoning="m."),
            chat_event("Yes"),
            chat_event("."),
            chat_event(finish_reason="stop"),
            USAGE,
            DONE,
        ]
    )


def cut_short(*words: str) -> Stream:
    return Stream([*map(chat_event, words), chat_event(finish_reason="length"), USAGE, DONE])
