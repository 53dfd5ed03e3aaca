"""A JSON value read into a typed Struct the way Go reads it, or the error text that Go's clients know.  Pure.

Owns the rules (names in any case, null = absent, unknown fields ignored) and the wording.  What fields a request has
stands beside the request: a `Shape` is a table of field -> Reader.

Two kinds of error, as in encoding/json: a field of the wrong type is remembered and reading goes on (the first one is
told at the end), a value whose own parser refuses it ends the reading at once.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from hyperllamad.core import durations
from hyperllamad.core.errors import BadRequestError

T = TypeVar("T")
Reader = Callable[[Any, "Reading"], Any]

_WORDS = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
_INT64 = 2**63


class Reading:
    """One value being read: where we are in it, and the first field found to have the wrong type."""

    __slots__ = ("failure", "path", "root")

    def __init__(self, root: str, path: tuple[str, ...] = ()) -> None:
        self.root = root  # Go's name of the request's struct: "ChatRequest"
        self.path = path
        self.failure: BadRequestError | None = None

    def mismatch(self, value: Any, expected: str, *, literal: bool = False) -> None:
        """`value` is not of Go type `expected`; `literal` shows the number itself."""
        word = _WORDS[type(value)] + (f" {value!r}" if literal else "")
        where = f"Go struct field {self.root}.{'.'.join(self.path)}" if self.path else "Go value"
        self.save(BadRequestError(f"json: cannot unmarshal {word} into {where} of type {expected}"))

    def save(self, failure: BadRequestError) -> None:
        self.failure = self.failure or failure


class Shape(Generic[T]):
    """A JSON object's fields and the Struct they fill; itself a Reader, so that shapes nest."""

    def __init__(
        self, go_name: str, struct: Callable[..., T], fields: Mapping[str, Reader], *, package: str = "api"
    ) -> None:
        self.go_name = go_name
        self._go_type = f"{package}.{go_name}"
        self._struct = struct
        self._fields = {name.lower(): (name, name.lstrip("_"), reader) for name, reader in fields.items()}

    def names(self) -> list[tuple[str, str]]:
        """(name on the wire, attribute of the Struct) of every field that is read."""
        return [(name, attribute) for name, attribute, _ in self._fields.values()]

    def __call__(self, value: Any, reading: Reading) -> T:
        if value is None:
            return self._struct()
        if not isinstance(value, dict):
            reading.mismatch(value, self._go_type)
            return self._struct()
        here, filled = reading.path, {}
        for key, item in value.items():
            field = self._fields.get(key) or self._fields.get(key.lower())
            if field is None or item is None:
                continue
            name, attribute, reader = field
            reading.path = (*here, name)
            filled[attribute] = reader(item, reading)
        reading.path = here
        return self._struct(**filled)


# -- readers -----------------------------------------------------------------------------------------------------------


def string(value: Any, reading: Reading) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        reading.mismatch(value, "string")
        return ""
    return value


def boolean(value: Any, reading: Reading) -> bool:
    if not isinstance(value, bool):
        reading.mismatch(value, "bool")
        return False
    return value


def integer(value: Any, reading: Reading) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        reading.mismatch(value, "int")
        return 0
    if isinstance(value, float) or not -_INT64 <= value < _INT64:
        reading.mismatch(value, "int", literal=True)
        return 0
    return value


def number(value: Any, reading: Reading) -> float | None:
    """A float64."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        reading.mismatch(value, "float64")
        return None
    return value


def mapping(value: Any, reading: Reading) -> dict[str, Any]:
    """A map whose values are looked at later."""
    if not isinstance(value, dict):
        reading.mismatch(value, "map[string]interface {}")
        return {}
    return value


def anything(value: Any, _: Reading) -> Any:
    return value


def keep_alive(value: Any, _: Reading) -> float | None:
    """Seconds, inf for ever; None = not said."""
    return durations.keep_alive(value)


def listing(go_type: str, item: Reader) -> Reader:
    """A list of `item`; `go_type` is Go's name for the whole."""

    def read_list(value: Any, reading: Reading) -> list[Any]:
        if not isinstance(value, list):
            reading.mismatch(value, go_type)
            return []
        return [item(each, reading) for each in value]

    return read_list


def own_parser(reader: Reader) -> Reader:
    """A type with an UnmarshalJSON of its own: what it finds wrong ends the reading."""

    def read_own(value: Any, reading: Reading) -> Any:
        inner = Reading(reading.root, reading.path)
        result = reader(value, inner)
        if inner.failure is not None:
            raise inner.failure
        return result

    return read_own


def image(value: Any, reading: Reading) -> str:
    """Base64 text, checked but left as it is: that is how an engine wants it too."""
    if value is None:
        return ""
    if not isinstance(value, str):
        reading.mismatch(value, "api.ImageData")
        return ""
    text = value.replace("\r", "").replace("\n", "")
    if not _is_base64(text):
        reading.save(BadRequestError(f"illegal base64 data at input byte {_corrupt_at(value)}"))
    return text


def _is_base64(text: str) -> bool:
    try:
        binascii.a2b_base64(text.encode(), strict_mode=True)
    except (binascii.Error, ValueError):
        return False
    return not text.endswith("===")  # which binascii lets pass behind a whole group


_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


def _corrupt_at(text: str) -> int:
    """Where Go's base64.StdEncoding gives up on `text`, which is known to be corrupt."""
    filled = 0  # characters of the current group of four
    for at, character in enumerate(text):
        if character in _BASE64:
            filled = (filled + 1) % 4
        elif character == "=" and filled >= 2:
            return _corrupt_padding(text, at, filled)
        elif character not in "\r\n":
            return at
    return len(text) - filled  # cut short: told as the beginning of the group that is not whole


def _corrupt_padding(text: str, at: int, filled: int) -> int:
    """The same from the first `=` on: one is missing, or something stands behind them."""
    after = _skip_newlines(text, at + 1)
    if filled == 2:
        if text[after : after + 1] != "=":
            return after - 1 if after < len(text) else after
        after = _skip_newlines(text, after + 1)
    return after


def _skip_newlines(text: str, at: int) -> int:
    while text[at : at + 1] in {"\r", "\n"}:
        at += 1
    return at
