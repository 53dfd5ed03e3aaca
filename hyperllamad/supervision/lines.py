"""Bytes from an engine's output into lines fit for a log: bounded, printable, whole."""

from __future__ import annotations

import re

LONGEST = 4096  # bytes kept of a line
_ENDS = re.compile(rb"[\r\n]+")  # a progress bar draws itself again after a carriage return
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])"
)  # ECMA-48: colours, titles
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class LineSplitter:
    """Feed it bytes as they come; it keeps at most LONGEST bytes of an unfinished line."""

    def __init__(self) -> None:
        self._rest = b""
        self._cut = False  # the unfinished line was longer than LONGEST; what follows of it is dropped

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete now; empty ones are dropped."""
        *complete, rest = _ENDS.split(data)
        lines = [self._finish(part) for part in complete]
        self._keep(rest)
        return [line for line in lines if line]

    def close(self) -> list[str]:
        """The last line, when it had no end."""
        line = self._finish(b"")
        return [line] if line else []

    def _keep(self, part: bytes) -> None:
        room = LONGEST - len(self._rest)
        self._cut = self._cut or len(part) > room
        self._rest += part[:room]

    def _finish(self, part: bytes) -> str:
        self._keep(part)
        text = self._rest.decode(errors="replace")
        mark = " [...]" if self._cut else ""
        self._rest, self._cut = b"", False
        return _CONTROLS.sub("\ufffd", _ESCAPES.sub("", text)).rstrip() + mark
