"""Modelfiles: from the text to what is asked of the daemon.  Pure, but for the question whether a path exists.

The language is Ollama's: one instruction for each line, its name in any case, its text bare, in "quotes" or between
three quotes over several lines; lines that begin with # say nothing.  Every error names the line.
"""

from __future__ import annotations

import difflib
import math
import os.path
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hyperllamactl.protocol.store import Create, Turn


def _finite(text: str) -> float:
    """A number that JSON can say: nan would come to the daemon as null, and be forgotten."""
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


INSTRUCTIONS = ("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "LICENSE", "MESSAGE", "ADAPTER")
ROLES = ("system", "user", "assistant")
# Ollama's options and what they hold.
PARAMETERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "seed"), int),
    **dict.fromkeys(("num_predict", "draft_num_predict", "top_k", "repeat_last_n"), int),
    **dict.fromkeys(("top_p", "min_p", "typical_p", "temperature", "repeat_penalty"), _finite),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), _finite),
    "use_mmap": lambda text: {"true": True, "false": False}[text.lower()],
    "stop": str,
}
_WORDS = {int: "a whole number", _finite: "a number"}
_TRIPLE = '"""'


class ModelfileError(Exception):
    """What is wrong, with the number of the line."""


class _Instruction(NamedTuple):
    line: int
    name: str
    text: str


def parse(text: str, model: str, directory: str) -> Create:
    """What to ask of the daemon to make `model`; relative paths are seen from `directory`.  Raises ModelfileError."""
    made = Create(model=model)
    seen: dict[str, int] = {}
    for line, name, value in _instructions(text):
        if name in {"FROM", "TEMPLATE", "SYSTEM"}:
            if name in seen:
                raise ModelfileError(f"line {line}: {name} is there twice, first in line {seen[name]}")
            seen[name] = line
        _add(made, line, name, value, directory)
    if "FROM" not in seen:
        raise ModelfileError("there is no FROM: say which model this one is made of")
    return made


def _add(made: Create, line: int, name: str, value: str, directory: str) -> None:
    if not value and name not in {"SYSTEM", "TEMPLATE"}:
        raise ModelfileError(f"line {line}: {name} says nothing")
    if name == "FROM":
        made.base, made.path = _source(value, line, directory)
    elif name == "PARAMETER":
        _add_parameter(made.parameters, line, value)
    elif name == "MESSAGE":
        made.messages.append(_message(line, value))
    elif name == "ADAPTER":
        made.adapters.append(_absolute(value, directory))
    elif name == "LICENSE":
        made.license.append(value)
    elif name == "SYSTEM":
        made.system = value
    else:
        made.template = value


def _source(value: str, line: int, directory: str) -> tuple[str, str]:
    """(model, path): what looks like a path, or is one, is a path."""
    path = _absolute(value, directory)
    if os.path.exists(path):  # noqa: PTH110  pathlib costs more than the rest of a start
        return "", path
    if value.startswith(("/", "./", "../", "~")) or value.endswith((".gguf", ".safetensors")):
        raise ModelfileError(f"line {line}: there is no {path}")
    return value, ""


def _absolute(value: str, directory: str) -> str:
    return os.path.normpath(os.path.join(directory, os.path.expanduser(value)))  # noqa: PTH111, PTH118  as above


def _add_parameter(parameters: dict[str, Any], line: int, value: str) -> None:
    name, rest = [*value.split(None, 1), ""][:2]
    name, rest = name.lower(), _unquoted(rest.strip())
    if name not in PARAMETERS:
        near = difflib.get_close_matches(name, PARAMETERS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ModelfileError(f"line {line}: there is no parameter '{name}'{hint}")
    if not rest:
        raise ModelfileError(f"line {line}: the parameter {name} has no value")
    kind = PARAMETERS[name]
    try:
        read = kind(rest)
    except (ValueError, KeyError):
        expected = _WORDS.get(kind, "true or false")
        raise ModelfileError(f"line {line}: {name} is {rest!r}, but {expected} was expected") from None
    if name == "stop":
        parameters.setdefault("stop", []).append(read)
    else:
        parameters[name] = read


def _message(line: int, value: str) -> Turn:
    role, content = [*value.split(None, 1), ""][:2]
    if role.lower() not in ROLES:
        raise ModelfileError(f"line {line}: '{role}' is no role of a message: {', '.join(ROLES)}")
    if not content.strip():
        raise ModelfileError(f"line {line}: the message says nothing")
    return Turn(role=role.lower(), content=_unquoted(content.strip()))


def _instructions(text: str) -> Iterator[_Instruction]:
    """Each instruction with the line it begins in."""
    lines = iter(enumerate(text.lstrip("\ufeff").splitlines(), 1))
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, rest = [*line.split(None, 1), ""][:2]
        if name.upper() not in INSTRUCTIONS:
            near = difflib.get_close_matches(name.upper(), INSTRUCTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(INSTRUCTIONS)}"
            raise ModelfileError(f"line {number}: '{name}' is no instruction: {hint}")
        if rest.count(_TRIPLE) == 1:
            rest = _until_closed(rest, number, name.upper(), lines)
        yield _Instruction(number, name.upper(), _unquoted(rest.strip()))


def _until_closed(first: str, number: int, name: str, lines: Iterator[tuple[int, str]]) -> str:
    found = [first]
    for _, line in lines:
        found.append(line)
        if _TRIPLE in line:
            if after := line.rpartition(_TRIPLE)[2].strip():
                raise ModelfileError(f"line {number}: behind the closing {_TRIPLE} of {name} stands {after!r}")
            return "\n".join(found)
    raise ModelfileError(f"line {number}: {name} opens {_TRIPLE} and never closes it")


def _unquoted(text: str) -> str:
    """Without the quotes around all of it."""
    if (found := re.search(r'^(\w+ )?"""(.*)"""$', text, re.DOTALL)) is not None:  # a role may stand before them
        return (found[1] or "") + found[2]
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    return text
