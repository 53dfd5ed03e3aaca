"""What hyperllamactl says on standard error: progress, sentences, warnings.  Standard output, for data, is not its own.

On a terminal there are progress lines that are written over, one for each file of a download; elsewhere a line for each
step and each finished file, so that a log reads well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO

from hyperllamactl import render
from hyperllamactl.protocol.base import Failed, Progress

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
        self._block = 0  # lines of progress on the terminal
        self._told: set[str] = set()  # files that are known to have come

    def progress(self, line: Progress) -> None:
        """Show where a long command stands."""
        if self._quiet:
            return
        step = f"{line.phase}  {line.detail}" if line.detail else line.phase
        if self._live:
            moving = line.files and line.done < line.total
            self._write_over(render.transfer(line, lines_of(self._stream) - 1) if moving else [_row(step, line)])
        else:
            if step != self._shown:
                self._stream.write(f"{render.harmless(_row(step, line))}\n")
            self._tell_files(line)
        self._shown = step
        self._stream.flush()

    def clear(self) -> None:
        """Take the progress lines away, before anything else is written to the terminal."""
        if self._live and self._block:
            self._write_over([])
            self._stream.flush()
        self._shown = ""

    def _write_over(self, rows: list[str]) -> None:
        """Put `rows` in the place of those that are there; the cursor stays in the last one."""
        up = f"\x1b[{self._block - 1}A" if self._block > 1 else ""
        text = "\n".join(f"{self._fit(row)}\x1b[K" for row in rows) or "\x1b[K"
        below = "\x1b[J" if self._block > max(len(rows), 1) else ""
        self._stream.write(f"\r{up}{text}{below}")
        self._block = len(rows)

    def _tell_files(self, line: Progress) -> None:
        for file in line.files:
            if file.done == file.total and file.name not in self._told:
                self._told.add(file.name)
                told = f"{file.name}  {render.size(file.total)}  {render.clock(line.elapsed)}"
                self._stream.write(f"{render.harmless(told)}\n")

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
        self._stream.write(f"{render.harmless(text)}\n")
        self._stream.flush()

    def _fit(self, text: str) -> str:
        """Cut to the terminal's width: a line that wraps cannot be written over."""
        return render.harmless(text)[: columns(self._stream) - 1]


def lines_of(stream: TextIO) -> int:
    """How high the terminal is; 24 where it does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).lines or 24
    except OSError:
        return 24


def _row(step: str, line: Progress) -> str:
    return f"{step}{_bytes(line)}  {render.clock(line.elapsed)}"


def _bytes(line: Progress) -> str:
    if line.total:
        return f"  {render.bar(line.done, line.total)}  {render.size(line.done)} of {render.size(line.total)}"
    return f"  {render.size(line.done)}" if line.done else ""
