"""What hyperllamactl says on standard error: progress, sentences, warnings.  Standard output, for data, is not its own.

On a terminal there is one progress line that is written over; elsewhere a line for each step, so that a log reads well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO

from hyperllamactl import render
from hyperllamactl.protocol import Failed, Progress

# ANSI colours of the states; every other state is on its way somewhere.
_COLOURS = {"ready": "32", "failed": "31"}
_ON_THE_WAY = "33"


def painter(stream: TextIO, environ: Mapping[str, str]) -> render.Paint:
    """Colours for a terminal that wants them (https://no-color.org)."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb" or not stream.isatty():
        return render.plain
    return lambda text, kind: f"\x1b[{_COLOURS.get(kind, _ON_THE_WAY)}m{text}\x1b[0m"


def columns(stream: TextIO) -> int:
    """How wide the terminal is; 80 where there is none or it does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


class Talk:
    """Speaks on one stream; quiet leaves warnings and failures."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._live = stream.isatty()
        self._shown = ""  # the step shown last

    def progress(self, line: Progress) -> None:
        """Show where a long command stands."""
        if self._quiet:
            return
        step = f"{line.phase}  {line.detail}" if line.detail else line.phase
        if self._live:
            self._stream.write(f"\r{self._fit(f'{step}{_bytes(line)}  {render.clock(line.elapsed)}')}\x1b[K")
        elif step != self._shown:
            self._stream.write(f"{step}{_bytes(line)}  {render.clock(line.elapsed)}\n")
        self._shown = step
        self._stream.flush()

    def clear(self) -> None:
        """Take the progress line away, before anything else is written to the terminal."""
        if self._live and self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
        self._shown = ""

    def say(self, text: str) -> None:
        """A sentence that is no warning; an empty one is nothing."""
        if text and not self._quiet:
            self._line(text)

    def warn(self, text: str) -> None:
        self._line(f"warning: {text}")

    def fail(self, failed: Failed) -> None:
        """What happened, then what to try."""
        self._line(f"hyperllamactl: {failed.message}" + (f"\n{failed.hint}" if failed.hint else ""))

    def _line(self, text: str) -> None:
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def _fit(self, text: str) -> str:
        """Cut to the terminal's width: a line that wraps cannot be written over."""
        return text[: columns(self._stream) - 1]


def _bytes(line: Progress) -> str:
    if line.total:
        return f"  {render.bar(line.done, line.total)}  {render.size(line.done)} of {render.size(line.total)}"
    return f"  {render.size(line.done)}" if line.done else ""
