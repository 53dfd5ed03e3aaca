"""The hot path against the Structs, and the small formats it is made of."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperllamad.front import engine_wire, gojson, ollama_lines
from hyperllamad.front import ollama_wire as wire
from hyperllamad.front.ollama_lines import ChatLines, GenerateLines
from hyperllamad.front.sse import EventLines, EventTooLongError

NOW = "2026-11-21T19:29:36.004728396Z"
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["<a&b>", "\u2028", "\x00\x7f\b\f", "é😀"])


@pytest.fixture(autouse=True)
def _stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_lines.gotime, "utc", lambda _: NOW.encode())


def chunk(text: str | None, thinking: str | None = None, logprobs: Any = None) -> engine_wire.Chunk:
    delta = engine_wire.Delta(content=text, reasoning=thinking)
    return engine_wire.Chunk(choices=[engine_wire.Choice(delta=delta, logprobs=logprobs)])


@given(TEXTS, TEXTS, TEXTS)
def test_a_fast_line_is_what_the_struct_would_be(model: str, text: str, thinking: str) -> None:
    head: dict[str, Any] = {"model": model, "created_at": NOW, "done": False}
    message = wire.Message(role="assistant", content=text, thinking=thinking)
    want = wire.ChatReply(**head, message=message).encode() + b"\n" if text or thinking else b""
    assert ChatLines(model).tokens([chunk(text, thinking or None)]) == want
    want = wire.GenerateReply(**head, response=text, thinking=thinking).encode() + b"\n" if text or thinking else b""
    assert GenerateLines(model).tokens([chunk(text, thinking or None)]) == want


def test_a_line_with_logprobs_is_what_the_struct_would_be() -> None:
    found = engine_wire.Logprobs(content=[engine_wire.TokenLogprob(token="é", logprob=-0.5)])
    logprob = wire.Logprob(token="é", logprob=msgspec.Raw(b"-0.5"), bytes=[195, 169])
    head: dict[str, Any] = {"model": "m", "created_at": NOW, "done": False, "logprobs": [logprob]}
    message = wire.Message(role="assistant", content="é", thinking="t")
    assert ChatLines("m").tokens([chunk("é", "t", found)]) == wire.ChatReply(**head, message=message).encode() + b"\n"
    reply = wire.GenerateReply(**head, response="é").encode() + b"\n"
    assert GenerateLines("m").tokens([chunk("é", None, found)]) == reply


def test_chunks_with_nothing_to_show_make_no_line() -> None:
    silent = [chunk(""), chunk(None), engine_wire.Chunk(), engine_wire.Chunk(choices=[engine_wire.Choice(text="")])]
    assert ChatLines("m").tokens(silent) == b""


@given(TEXTS)
def test_strings_are_escaped_as_go_does(text: str) -> None:
    data = gojson.string(text)
    assert json.loads(data) == text
    assert not any(unsafe in data for unsafe in (b"<", b">", b"&", "\u2028".encode(), "\u2029".encode()))
    assert "\u00e9".encode() in gojson.string("é")


# Float -> encoding/json's text (its rule: exponents below 1e-6 and from 1e21 on, without a leading zero).
FLOATS = {
    1.0: "1",
    -0.5: "-0.5",
    100000.0: "100000",
    1e-05: "0.00001",
    1e-06: "0.000001",
    1.5e-07: "1.5e-7",
    1e-10: "1e-10",
    1e16: "10000000000000000",
    1.25e20: "125000000000000000000",
    1e21: "1e+21",
    0.1 + 0.2: "0.30000000000000004",
    0.10000000149011612: "0.10000000149011612",
    0.0: "0",
}


@pytest.mark.parametrize(("value", "text"), FLOATS.items())
def test_floats_are_written_as_go_does(value: float, text: str) -> None:
    assert bytes(gojson.number(value)) == text.encode()


def test_maps_are_written_in_key_order() -> None:
    assert gojson.encode(gojson.plain({"b": 1.0, "a": [2.0, {"d": None, "c": "<"}]})) == (
        b'{"a":[2,{"c":"\\u003c","d":null}],"b":1}'
    )


@given(st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b and b"\r" not in b)), st.data())
def test_events_come_out_whole_however_they_are_cut(payloads: list[bytes], data: st.DataObject) -> None:
    ends = data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n"]))
    payloads = [data.draw(st.sampled_from([b"", b"{"])) + payload for payload in payloads]
    stream = b"".join(b"data: " + payload + ends for payload in payloads)
    edges = [at + len(ends) for at in range(len(stream)) if stream.startswith(ends, at)]
    cut = st.integers(0, len(stream)) | st.sampled_from([0, *edges])
    cuts = sorted(data.draw(st.lists(cut, max_size=8)))
    lines, found = EventLines(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += lines.feed(stream[start:end])
    assert found == [payload.strip() for payload in payloads]


def test_white_space_around_an_event_that_comes_alone_is_left_out() -> None:
    assert EventLines().feed(b"data: {} \t\n\n") == [b"{}"]


def test_what_is_no_event_is_left_out() -> None:
    found = EventLines().feed(b": ping\n\nevent: x\nid: 1\ndata:{}\ndata: [DONE]\n\nerror: {}\nretry: 3\nnonsense\n")
    assert found == [b"{}", b"[DONE]", b"{}"]


def test_a_line_without_end_is_refused() -> None:
    lines = EventLines()
    with pytest.raises(EventTooLongError):
        for _ in range(200):
            lines.feed(b"x" * 65536)
