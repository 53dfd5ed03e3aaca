"""Section 1.5 of the specification: how a body is read, and the texts of what is wrong with it."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperllamad.core.errors import BadRequestError
from hyperllamad.front import gosyntax
from hyperllamad.front.body import read
from hyperllamad.front.ollama_requests import CHAT, GENERATE, SHOW


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def message(**fields: Any) -> bytes:
    return chat(messages=[{"role": "user", "content": "x", **fields}])


FIELD = "json: cannot unmarshal {} into Go struct field ChatRequest.{} of type {}"

# The rows of the specification's table first.
TEXTS: list[tuple[bytes, str]] = [
    (b"", "missing request body"),
    (b" \n\t ", "missing request body"),
    (b"{", "unexpected EOF"),
    (b"{model:1}", "invalid character 'm' looking for beginning of object key string"),
    (b"hello", "invalid character 'h' looking for beginning of value"),
    (b"[]", "json: cannot unmarshal array into Go value of type api.ChatRequest"),
    (b'"x"', "json: cannot unmarshal string into Go value of type api.ChatRequest"),
    (b'{"model":1}', FIELD.format("number", "model", "string")),
    (message(content=5), FIELD.format("number", "messages.content", "string")),
    (chat(messages="hi"), FIELD.format("string", "messages", "[]api.Message")),
    (chat(messages=["x"]), FIELD.format("string", "messages", "api.Alias")),
    (chat(options=5), FIELD.format("number", "options", "map[string]interface {}")),
    (chat(top_logprobs=1.5), FIELD.format("number 1.5", "top_logprobs", "int")),
    (chat(stream="no"), FIELD.format("string", "stream", "bool")),
    (message(images=["data:image/png;base64,AA"]), "illegal base64 data at input byte 4"),
    (
        message(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]),
        "Value looks like object, but can't find closing '}' symbol",
    ),
    (
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"properties": []}}}]),
        "Value looks like object, but can't find closing '}' symbol",
    ),
    # What follows from the same rules.
    (b"true", "json: cannot unmarshal bool into Go value of type api.ChatRequest"),
    (b"12", "json: cannot unmarshal number into Go value of type api.ChatRequest"),
    (chat(model={}), FIELD.format("object", "model", "string")),
    (chat(model=[]), FIELD.format("array", "model", "string")),
    (chat(model=True), FIELD.format("bool", "model", "string")),
    (chat(top_logprobs=2**70), FIELD.format(f"number {2**70}", "top_logprobs", "int")),
    (chat(tools={}), FIELD.format("object", "tools", "api.Tools")),
    (chat(tools=["f"]), FIELD.format("string", "tools", "api.Tool")),
    (
        message(tool_calls=[{"function": {"name": 1}}]),
        FIELD.format("number", "messages.tool_calls.function.name", "string"),
    ),
    (message(images=[5]), FIELD.format("number", "messages.images", "api.ImageData")),
    # The first wrong field is told, but one with a parser of its own ends the reading.
    (chat(stream="no", model=1), FIELD.format("number", "model", "string")),
    (
        chat(options=5, think="foo"),
        'invalid think value: "foo" (must be "high", "medium", "low", "max", true, or false)',
    ),
    (chat(options=5, messages=[{"role": 1}]), FIELD.format("number", "messages.role", "string")),
    # think and keep_alive, sections 5.4 and 3.1.
    (chat(think=5), 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
    (chat(think=[]), 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
    (chat(keep_alive="5"), 'time: missing unit in duration "5"'),
    (chat(keep_alive="abc"), 'time: invalid duration "abc"'),
    (chat(keep_alive=""), 'time: invalid duration ""'),
    (chat(keep_alive="1d"), 'time: unknown unit "d" in duration "1d"'),
    (chat(keep_alive=True), "Unsupported type: 'bool'"),
    (chat(keep_alive={}), "Unsupported type: 'map[string]interface {}'"),
    (chat(keep_alive=[]), "Unsupported type: '[]interface {}'"),
]


@pytest.mark.parametrize(("raw", "text"), TEXTS)
def test_text_of_a_wrong_body(raw: bytes, text: str) -> None:
    with pytest.raises(BadRequestError) as failure:
        read(raw, CHAT)
    assert failure.value.message == text
    assert failure.value.status == 400


def test_the_struct_of_the_request_is_named() -> None:
    for shape, name in ((GENERATE, "GenerateRequest"), (SHOW, "ShowRequest")):
        with pytest.raises(BadRequestError, match=f"Go struct field {name}.model of type string"):
            read(b'{"model":1}', shape)
    with pytest.raises(BadRequestError, match=r"number 2.5 into Go struct field GenerateRequest.context of type int"):
        read(b'{"context":[1,2.5]}', GENERATE)
    with pytest.raises(BadRequestError, match=r"string into Go struct field GenerateRequest.context of type \[\]int"):
        read(b'{"context":"x"}', GENERATE)


def test_what_is_let_pass() -> None:
    request = read(b' {"MODEL":"m","Messages":[{"ROLE":"USER","content":"x"}],"nonsense":{"a":[1]}} trailing {', CHAT)
    assert (request.model, request.messages[0].role, request.messages[0].content) == ("m", "user", "x")
    assert read(b"null", CHAT) == read(b"{}", CHAT)
    nulls = dict.fromkeys(["model", "messages", "stream", "think", "keep_alive", "options", "tools", "top_logprobs"])
    assert read(json.dumps(nulls).encode(), CHAT) == read(b"{}", CHAT)
    assert read(chat(messages=[None]), CHAT).messages[0].content == ""
    assert read(b'{"name":"m"}', CHAT).asked_model == "m"


def test_text_that_is_not_unicode_is_mended() -> None:
    raw = b'{"model":"a\xffb","messages":[{"content":"\\ud800 \\ud83d\\ude00 \\\\ud800"}]}'
    request = read(raw, CHAT)
    assert request.model == "a\ufffdb"
    assert request.messages[0].content == "\ufffd \N{GRINNING FACE} \\ud800"
    msgspec.json.encode(request.messages[0].content)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0.5, 0.5), (0, 0), ("0", 0), (-1, math.inf), ("-1m", math.inf), ("1h30m", 5400), (None, None)],
)
def test_keep_alive(value: object, seconds: float | None) -> None:
    assert read(chat(keep_alive=value), CHAT).keep_alive == seconds


# -- base64 ------------------------------------------------------------------------------------------------------------

# Text -> where Go's base64.StdEncoding.Decode says it is corrupt (worked out from its source, encoding/base64).
CORRUPT = {
    "A": 0,
    "AA": 0,
    "AAA": 0,
    "AAAAA": 4,
    "AAAA\nBB": 5,
    "AAAA*": 4,
    "AA*A": 2,
    "=": 0,
    "A===": 1,
    "AA=": 3,
    "AA=A": 2,
    "AA==A": 4,
    "AAA=A": 4,
    "AAAA====": 4,
    "AA==AA==": 4,
    "a-_b": 1,
    "é": 0,
}


@pytest.mark.parametrize(("text", "at"), CORRUPT.items())
def test_where_base64_is_corrupt(text: str, at: int) -> None:
    with pytest.raises(BadRequestError, match=f"illegal base64 data at input byte {at}$"):
        read(message(images=[text]), CHAT)


@given(st.binary(max_size=40), st.integers(1, 10))
def test_good_base64_passes_with_line_ends(data: bytes, width: int) -> None:
    text = base64.b64encode(data).decode()
    folded = "\r\n".join(text[i : i + width] for i in range(0, len(text), width))
    assert read(message(images=[folded]), CHAT).messages[0].images == [text]


# -- syntax ------------------------------------------------------------------------------------------------------------

SYNTAX = {
    b"tru1": "invalid character '1' in literal true (expecting 'e')",
    b"nul": "unexpected EOF",
    b"[1 2]": "invalid character '2' after array element",
    b"[1,]": "invalid character ']' looking for beginning of value",
    b'{"a" 1}': "invalid character '1' after object key",
    b'{"a":1 "b"}': "invalid character '\"' after object key:value pair",
    b'{"a":1,}': "invalid character '}' looking for beginning of object key string",
    b'{"a":01}': "invalid character '1' after object key:value pair",
    b'"a\nb"': "invalid character '\\n' in string literal",
    b'"\\x"': "invalid character 'x' in string escape code",
    b'"\\u12G4"': "invalid character 'G' in \\u hexadecimal character escape",
    b"-x": "invalid character 'x' in numeric literal",
    b"[1.x]": "invalid character 'x' after decimal point in numeric literal",
    b"[1e+]": "invalid character ']' in exponent of numeric literal",
    b"'a'": "invalid character '\\'' looking for beginning of value",
    b"\xef\xbb\xbf{}": "invalid character '\u00ef' looking for beginning of value",
    b"\x00": "invalid character '\\x00' looking for beginning of value",
    b'{"a":[{"b":"c': "unexpected EOF",
    b"[" * 10_001: "exceeded max depth",
    b"[" * 600 + b"]" * 600: "exceeded max depth",
    b'{"a":' * 600 + b"1" + b"}" * 600: "exceeded max depth",
    b"[" * 600 + b'"\\ud800"' + b"]" * 600: "exceeded max depth",
}


@pytest.mark.parametrize(("raw", "text"), SYNTAX.items(), ids=[repr(raw[:12]) for raw in SYNTAX])
def test_text_of_wrong_syntax(raw: bytes, text: str) -> None:
    with pytest.raises(BadRequestError) as failure:
        read(raw, CHAT)
    assert failure.value.message == text


def test_many_lists_beside_each_other_are_not_deep() -> None:
    messages = ",".join(['{"role":"user","content":"hi"}'] * 2000)
    assert read(f'{{"model":"m","messages":[{messages}]}}'.encode(), CHAT)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
SEEN: Counter[str] = Counter()


@settings(max_examples=400)
@given(JSON, st.floats(0, 1), st.binary(max_size=2), st.sampled_from(["keep", "cut", "spoil"]))
def test_syntax_agrees_with_msgspec(value: Any, where: float, noise: bytes, how: str) -> None:
    raw = json.dumps([value], ensure_ascii=False).encode(errors="replace")
    at = int(where * len(raw))
    if how != "keep":
        raw = raw[:at] + (noise + raw[at + 1 :] if how == "spoil" else b"")
    try:
        msgspec.json.decode(raw)
    except UnicodeDecodeError:
        SEEN["not unicode"] += 1
        return
    except msgspec.DecodeError:
        try:
            end = gosyntax.value_end(raw)
        except BadRequestError as failure:
            SEEN["eof" if "EOF" in failure.message else "syntax"] += 1
        else:
            SEEN["trailing"] += 1
            json.loads(raw[:end].decode(errors="replace"))
        return
    SEEN["sound"] += 1
    assert gosyntax.value_end(raw) == len(raw.rstrip(b" \t\r\n"))


def test_the_random_test_saw_every_kind() -> None:
    if SEEN:  # it may run alone
        assert min(SEEN[kind] for kind in ("sound", "trailing", "eof", "syntax")) >= 5, SEEN


@pytest.mark.parametrize("digits", [309, 400, 5000])
def test_a_whole_number_no_float_holds_is_refused_as_by_go(digits: int) -> None:
    number = "1" + "0" * digits
    for text in (f'{{"options": {{"stop": [{number}]}}}}', f'{{"top_logprobs": -{number}}}'):
        with pytest.raises(BadRequestError, match=r"json: cannot unmarshal number -?10+ into Go value of type float64"):
            read(text.encode(), CHAT)
    said = read(f'{{"messages": [{{"content": "{number}"}}]}}'.encode(), CHAT).messages[0].content
    assert said == number, "digits in a text are a text"
