"""Request bodies of the OpenAI and Anthropic dialects, as far as they are alike: compression, and what they refuse.

Go's reading of JSON is that of `body` and `shapes`; the fields stand beside each dialect's requests.  A request refused
here was refused before any route looked at it, which Ollama shows in the content type of the error: hence DoorError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import zstandard
from quart import request

from hyperllamad.core.errors import BadRequestError, HyperLlamaError
from hyperllamad.front import body
from hyperllamad.front.shapes import Reading, Shape

T = TypeVar("T")
R = TypeVar("R")

LARGEST_UNPACKED = 64 * 1024 * 1024  # bytes; a few kB of zstd can stand for any number of zeros
BASE64 = re.compile(r"[A-Za-z0-9+/\r\n]*+={0,2}+[\r\n]*+")  # possessive: a long text that is none is read once


class DoorError(BadRequestError):
    """The body itself is wrong."""


class UnsupportedEncodingError(HyperLlamaError):
    """The body is compressed in a way that is not understood here."""

    code = "unsupported_encoding"
    status = 415


class TooLargeError(HyperLlamaError):
    """The body is small on the wire and too large when unpacked."""

    code = "too_large"
    status = 413


async def receive(shape: Shape[T], translate: Callable[[T], R]) -> R:
    """The current request, read and translated; raises DoorError, UnsupportedEncodingError, TooLargeError."""
    raw, encoding = await body.received(), request.headers.get("Content-Encoding", "").strip().lower()
    large = len(raw) > body.LARGE or encoding != ""  # nobody knows yet how large that becomes
    return await body.aside(lambda: _read(_unpacked(raw, encoding), shape, translate), large=large)


def _read(raw: bytes, shape: Shape[T], translate: Callable[[T], R]) -> R:
    try:
        if not raw.strip(b" \t\r\n"):
            raise BadRequestError("EOF")
        return translate(body.read(raw, shape))
    except BadRequestError as found:
        raise DoorError(found.message, hint=found.hint) from found


def _unpacked(raw: bytes, encoding: str) -> bytes:
    if encoding in {"", "identity"}:
        return raw
    if encoding != "zstd":
        text = f"request bodies in the encoding {encoding!r} are not understood"
        raise UnsupportedEncodingError(text, hint="send the body as it is, or as zstd")
    reader = zstandard.ZstdDecompressor(max_window_size=LARGEST_UNPACKED).stream_reader(raw, read_across_frames=True)
    try:
        data = reader.read(LARGEST_UNPACKED + 1)
    except (zstandard.ZstdError, MemoryError) as found:
        raise DoorError(f"the body is not sound zstd data: {found}") from found
    if len(data) > LARGEST_UNPACKED:
        raise TooLargeError(f"the body is larger than {LARGEST_UNPACKED} bytes when unpacked")
    return data


# -- readers beside those of `shapes` ----------------------------------------------------------------------------------


def objects(go_type: str, item: str) -> Callable[[Any, Reading], list[dict[str, Any]]]:
    """A list of objects that are kept as they are; null stands for none."""

    def read_objects(value: Any, reading: Reading) -> list[dict[str, Any]]:
        if not isinstance(value, list):
            reading.mismatch(value, go_type)
            return []
        kept = [each for each in value if each is not None]
        for each in kept:
            if not isinstance(each, dict):
                reading.mismatch(each, item)
                return []
        return kept

    return read_objects


def text_of(item: Mapping[str, Any], name: str) -> str:
    """A field of an object that was kept as it is, "" when it is not said; raises BadRequestError for no text."""
    value = item.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequestError(f"{name} must be a string")
    return value or ""


def kind(value: Any) -> str:
    """Go's word for what `any` holds."""
    words = {str: "string", bool: "bool", int: "float64", float: "float64", list: "[]interface {}"}
    return "<nil>" if value is None else words.get(type(value), "map[string]interface {}")
