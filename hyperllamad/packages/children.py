"""Package tools as children: run to their end, heard line by line, ended whole when the caller is cancelled."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc

from hyperllamad.core.errors import InstallFailedError
from hyperllamad.packages.words import explain

KEPT_LINES = 200  # of a child's output, for the sentence that explains its failure
END_GRACE = 5.0  # seconds a cancelled child gets between TERM and KILL


class ToolFailedError(InstallFailedError):
    """A package tool ended with an error; `lines` is the end of what it wrote."""

    def __init__(self, message: str, *, hint: str = "", lines: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.lines = tuple(lines)


async def run_tool(
    argv: Sequence[str],
    *,
    on_line: Callable[[str], None] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    limit: float | None = None,
) -> tuple[str, ...]:
    """Run a child to its end; the last lines it wrote, standard error included.

    Raises ToolFailedError when it exits with anything but 0, cannot be started, or takes more than `limit` seconds.
    """
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    name = Path(argv[0]).name
    with anyio.move_on_after(limit) as patience:
        async with _child(argv, env=env, cwd=cwd) as process:
            async for line in _lines(process):
                kept.append(line)
                if on_line:
                    on_line(line)
            code = await process.wait()
        if code == 0:
            return tuple(kept)
        cause, hint = explain(kept) if code > 0 else (f"it was ended by {signal.Signals(-code).name}", "")
        raise ToolFailedError(cause, hint=hint, lines=kept)
    assert patience.cancelled_caught  # noqa: S101  # the only way here
    raise ToolFailedError(f"{name} did not finish within {limit:.0f} seconds", lines=kept)


@asynccontextmanager
async def _child(
    argv: Sequence[str], *, env: Mapping[str, str] | None, cwd: str | None
) -> AsyncIterator[anyio.abc.Process]:
    try:
        process = await anyio.open_process(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as failure:
        raise ToolFailedError(f"{argv[0]} cannot be started: {failure.strerror}") from failure
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
            await process.aclose()


async def _end(process: anyio.abc.Process) -> None:
    """TERM, then KILL, to the whole session of a child that did not come to its end by itself."""
    if process.returncode is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        with anyio.move_on_after(END_GRACE):
            await process.wait()


async def _lines(process: anyio.abc.Process) -> AsyncIterator[str]:
    """Lines as they come; pip's carriage returns end lines too."""
    assert process.stdout is not None  # noqa: S101  # we asked for a pipe
    rest = b""
    async for chunk in process.stdout:
        *whole, rest = re.split(rb"[\r\n]+", rest + chunk)
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
