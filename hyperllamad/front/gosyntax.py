"""Go's view of a JSON text: where its first value ends, or what is wrong with it in the words of encoding/json.

Only asked when msgspec refused a body, so it is written to be read, not to be fast.  Knows nothing of fields or types.
"""

from __future__ import annotations

import re
from typing import NoReturn

from hyperllamad.core.errors import BadRequestError

_SPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_HEX = re.compile(rb"[0-9A-Fa-f]")
_LITERALS = {b"t"[0]: b"true", b"f"[0]: b"false", b"n"[0]: b"null"}
_DEEPEST = 10_000  # levels; encoding/json stops there too


def value_end(data: bytes) -> int:
    """The offset behind the first JSON value of `data`; raises BadRequestError with Go's text."""
    return _Scanner(data).value_end()


class _Scanner:
    """One pass over the bytes; `at` is the next byte to look at."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def value_end(self) -> int:
        """Walk values with a list of the closing brackets awaited: no recursion, whatever a client sends."""
        open_until: list[bytes] = []
        self._begin(open_until)
        while open_until:
            closing = open_until[-1]
            self._space()
            found = self._peek()
            if found == closing:
                self._at += 1
                open_until.pop()
            elif found != b",":
                self._wrong("after object key:value pair" if closing == b"}" else "after array element")
            else:
                self._at += 1
                if closing == b"}":
                    self._key()
                self._begin(open_until)
        return self._at

    def _begin(self, open_until: list[bytes]) -> None:
        """Read a scalar whole; of a list or an object read up to its first scalar (or its end)."""
        while True:
            self._space()
            first = self._peek()
            if first not in {b"{", b"["}:
                return self._scalar(first)
            self._at += 1
            if len(open_until) == _DEEPEST:
                raise BadRequestError("exceeded max depth")
            self._space()
            closing = b"}" if first == b"{" else b"]"
            if self._peek() == closing:
                self._at += 1
                return None
            open_until.append(closing)
            if closing == b"}":
                self._key()

    def _key(self) -> None:
        self._space()
        if self._peek() != b'"':
            self._wrong("looking for beginning of object key string")
        self._string()
        self._space()
        if self._peek() != b":":
            self._wrong("after object key")
        self._at += 1

    def _scalar(self, first: bytes) -> None:
        if first == b'"':
            self._string()
        elif first == b"-" or first.isdigit():
            self._number()
        elif (literal := _LITERALS.get(first[0])) is not None:
            for i in range(len(literal)):
                if self._peek() != literal[i : i + 1]:
                    self._wrong(f"in literal {literal.decode()} (expecting {_quoted(literal[i])})")
                self._at += 1
        else:
            self._wrong("looking for beginning of value")

    def _string(self) -> None:
        self._at += 1
        while True:
            self._skip(_PLAIN)
            found = self._peek()
            self._at += 1
            if found == b'"':
                return
            if found != b"\\":
                self._at -= 1
                self._wrong("in string literal")
            escape = self._peek()
            if escape == b"u":
                for _ in range(4):
                    self._at += 1
                    if not _HEX.match(self._peek()):
                        self._wrong("in \\u hexadecimal character escape")
            elif escape not in b'bfnrt\\/"':
                self._wrong("in string escape code")
            self._at += 1

    def _number(self) -> None:
        if self._peek() == b"-":
            self._at += 1
            self._digit("in numeric literal")
        if self._peek() == b"0":
            self._at += 1
        else:
            self._skip(_DIGITS)
        if self._look() == b".":
            self._at += 1
            self._digit("after decimal point in numeric literal")
            self._skip(_DIGITS)
        if self._look() in {b"e", b"E"}:
            self._at += 1
            if self._peek() in {b"+", b"-"}:
                self._at += 1
            self._digit("in exponent of numeric literal")
            self._skip(_DIGITS)

    def _digit(self, where: str) -> None:
        if not self._peek().isdigit():
            self._wrong(where)

    def _space(self) -> None:
        self._skip(_SPACE)

    def _skip(self, pattern: re.Pattern[bytes]) -> None:
        found = pattern.match(self._data, self._at)
        if found is not None:
            self._at = found.end()

    def _look(self) -> bytes:
        return self._data[self._at : self._at + 1]

    def _peek(self) -> bytes:
        found = self._look()
        if not found:
            raise BadRequestError("unexpected EOF")
        return found

    def _wrong(self, where: str) -> NoReturn:
        raise BadRequestError(f"invalid character {_quoted(self._data[self._at])} {where}")


def _quoted(byte: int) -> str:
    """A byte between single quotes as Go quotes it: Latin-1, control characters escaped."""
    special = {0x27: "\\'", 0x22: '"', 0x5C: "\\\\", 0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x08: "\\b", 0x0C: "\\f"}
    special |= {0x07: "\\a", 0x0B: "\\v"}
    if byte in special:
        return f"'{special[byte]}'"
    text = chr(byte)
    if text.isprintable():
        return f"'{text}'"
    return f"'\\x{byte:02x}'" if byte < 0x80 else f"'\\u{byte:04x}'"
