"""TOML files as structs: every mistake becomes one ConfigError with file, key, what was found and what was expected.

It must not know any key.  `keys.toml`, which is no configuration, is read with it too.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hyperllamad.core.errors import ConfigError

T = TypeVar("T")

# msgspec's names of types, in the words of who writes TOML.
_WORDS = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "object": "a table"}
_WORDS |= {"array": "a list"}
_SEE = "see the commented file for the"


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TOML table: unknown keys are refused."""


def decode(path: Path, kind: type[T], *, secret: bool = False) -> T:
    """A TOML file as `kind`; raises ConfigError with file, key, what was found (unless `secret`) and expected."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise ConfigError(f"{path}: cannot be read: {failure.strerror}") from failure
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise ConfigError(f"{path}: not valid TOML: {failure}") from failure
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as failure:
        raise ConfigError(f"{path}: {_explain(str(failure), tree, secret=secret)}") from failure


def _explain(text: str, tree: object, *, secret: bool) -> str:
    """msgspec's sentence turned into ours: the key, what was found there, what was expected."""
    what, _, where = text.partition(" - at `$")
    steps = re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]", where)
    key = ".".join(name or index for name, index in steps)
    if unknown := re.search(r"unknown field `(.+)`", what):
        return f"unknown key `{f'{key}.' if key else ''}{unknown[1]}`: {_SEE} keys there are"
    if missing := re.search(r"missing required field `(.+)`", what):
        return f"the key `{f'{key}.' if key else ''}{missing[1]}` is missing"
    expected = re.sub(r"`(\w+)`", lambda word: _WORDS.get(word[1], word[1]), re.sub(r", got `.*`", "", what))
    expected = expected.removeprefix("Expected ")
    if where.endswith("[...]`"):  # a table of whatever names: msgspec does not say at which, and others may be secrets
        return f"one of the values in `{key}` is not what was expected: {expected}"
    found: Any = tree
    for name, index in steps:
        found = found[name] if name else found[int(index)]
    shown = "not shown" if secret else repr(found)
    if what.startswith("Invalid enum value"):
        return f"`{key}` is {shown}, which it cannot be: {_SEE} values there are"
    return f"`{key}` is {shown}, but {expected} was expected"
