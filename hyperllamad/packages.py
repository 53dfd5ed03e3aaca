"""Python packages for others than the daemon: virtual environments, pip and uv, each run as a child.

Owns how a package tool is called, how its output becomes progress and how its failure becomes a sentence.  Knows no
engine and no model: callers say what to install and where.  Children live in sessions of their own and are ended
whole when the caller is cancelled.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc

from hyperllamad.core.errors import InstallFailedError

KEPT_LINES = 200  # of a child's output, for the sentence that explains its failure
END_GRACE = 5.0  # seconds a cancelled child gets between TERM and KILL


@dataclass(frozen=True, slots=True)
class Progress:
    """Something moved.  `done` and `total` are bytes, 0 when they do not apply."""

    phase: str
    detail: str = ""
    done: int = 0
    total: int = 0


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Index:
    """Where packages come from, on top of the user's own pip configuration; empty = as that says."""

    url: str = ""
    extra_urls: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """The options pip and uv share."""
        main = ("--index-url", self.url) if self.url else ()
        return (*main, *(part for url in self.extra_urls for part in ("--extra-index-url", url)))


def ignore(_: Progress) -> None:
    """An OnProgress for callers who do not look."""


class ToolFailedError(InstallFailedError):
    """A package tool ended with an error; `lines` is the end of what it wrote."""

    def __init__(self, message: str, *, hint: str = "", lines: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.lines = tuple(lines)


# -- virtual environments ----------------------------------------------------------------------------------------


async def create_environment(directory: Path) -> Path:
    """A virtual environment of the daemon's own Python at `directory`; its interpreter.  Raises InstallFailedError."""
    try:
        await run_tool((sys.executable, "-m", "venv", str(directory)))
    except ToolFailedError as failure:
        if not any("ensurepip" in line for line in failure.lines):
            raise
        hint = "install the package that brings Python's venv module with pip (on Debian: python3-venv)"
        raise InstallFailedError("this Python cannot make virtual environments", hint=hint) from failure
    return directory / "bin" / "python"


class Pip:
    """pip inside one virtual environment."""

    def __init__(
        self, python: Path, *, index: Index = Index(), temporary: Path | None = None, on_progress: OnProgress = ignore
    ) -> None:
        """`temporary` takes the downloads: the system's own directory may be too small for gigabytes."""
        self._command = (str(python), "-m", "pip", "--disable-pip-version-check", "--no-input")
        self._python = python
        self._index = index
        self._env = {"TMPDIR": str(temporary)} if temporary else {}
        self._on_progress = on_progress
        self._bar: tuple[str, ...] = ()

    async def upgrade(self) -> None:
        """Bring pip itself up to date where the index has a newer one: old ones cannot resolve what engines ask."""
        try:
            await self._pip("install", "--upgrade", *self._index.options, "pip")
        except ToolFailedError:
            self._on_progress(Progress("creating", "pip stays as it is: the index has no newer one"))
        lines = await run_tool((*self._command, "--version"))
        version = re.match(r"pip (\d+)\.(\d+)", lines[-1] if lines else "")
        if version and (int(version[1]), int(version[2])) >= (24, 1):
            self._bar = ("--progress-bar", "raw")  # lines a program can read

    async def install(self, requirements: Sequence[str], *, constraints: Path | None = None) -> None:
        """Install; raises ToolFailedError.  Constraints hold only what is asked for anyway to exact versions."""
        held = ("--constraint", str(constraints)) if constraints else ()
        await self._pip("install", *self._bar, *self._index.options, *held, *requirements)

    async def uninstall(self, names: Sequence[str]) -> None:
        """Take packages out again; those that are not there do not matter."""
        await self._pip("uninstall", "--yes", *names)

    async def install_with_uv(
        self, requirements: Sequence[str], *, torch_backend: str, constraints: Path | None = None
    ) -> None:
        """The same through uv, which knows where the builds of torch lie that are not in the ordinary index."""
        if not (uv := shutil.which("uv")):
            await self._pip("install", *self._index.options, "uv")
            uv = str(self._python.with_name("uv"))
        held = ("--constraint", str(constraints)) if constraints else ()
        backend = ("--torch-backend", torch_backend)
        command = (uv, "pip", "install", "--python", str(self._python), *backend, *self._index.options, *held)
        reader = PipReader(self._on_progress)
        await run_tool((*command, *requirements), on_line=reader.read, env=self._env)

    async def download(self, requirement: str, directory: Path) -> Path:
        """The one wheel of `requirement`, without what it depends on, put into `directory`; its path."""
        before = _wheels(directory)
        only = ("--no-deps", "--only-binary", ":all:", "--dest", str(directory))
        await self._pip("download", *self._bar, *self._index.options, *only, requirement)
        new = _wheels(directory) - before or before
        if len(new) != 1:
            raise InstallFailedError(f"{requirement}: expected one wheel, found {len(new)}")
        return new.pop()

    async def _pip(self, *arguments: str) -> None:
        reader = PipReader(self._on_progress)
        await run_tool((*self._command, *arguments), on_line=reader.read, env=self._env)


def _wheels(directory: Path) -> set[Path]:
    return set(directory.glob("*.whl"))


async def download(
    requirement: str, directory: Path, *, index: Index = Index(), on_progress: OnProgress = ignore
) -> Path:
    """Download one wheel with the daemon's own pip, or that of a passing environment; raises InstallFailedError."""
    if importlib.util.find_spec("pip"):
        pip = Pip(Path(sys.executable), index=index, temporary=directory, on_progress=on_progress)
        return await pip.download(requirement, directory)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        python = await create_environment(Path(scratch))
        pip = Pip(python, index=index, temporary=directory, on_progress=on_progress)
        return await pip.download(requirement, directory)


# -- what pip says -------------------------------------------------------------------------------------------------


class PipReader:
    """Turns the lines of pip, or of uv, into progress."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._package = ""

    def read(self, line: str) -> None:
        if bar := re.fullmatch(r"Progress (\d+) of (\d+)", line):
            self._on_progress(Progress("downloading", self._package, int(bar[1]), int(bar[2])))
        elif collecting := re.match(r"\s*(?:Collecting|Downloading|Downloaded|Using cached|Processing) (\S+)", line):
            self._package = collecting[1].rsplit("/", 1)[-1]
            self._on_progress(Progress("downloading", self._package))
        elif installing := re.match(r"Installing collected packages: (.*)", line):
            count = installing[1].count(",") + 1
            self._on_progress(Progress("installing", f"{count} package{'s' if count > 1 else ''}"))


# The first that matches is the cause: pip says much else on its way to it.
_CAUSES = (
    (r"No space left on device", "the disk became full", "make room and try again"),
    (
        r"name resolution|Name or service not known|NewConnectionError|ConnectTimeout|ReadTimeout|dns error|"  # noqa: ISC004
        r"Connection refused|Network is unreachable|Max retries exceeded|error sending request",
        "the package index cannot be reached",
        "check the network, or set `index_url` in the engine's file to an index that can be reached",
    ),
    (
        r"HTTP error (\d+)|(\d{3}) (?:Client|Server) Error",
        "the package index refused with HTTP {0}",
        "check `index_url` in the engine's file",
    ),
    (
        r"No matching distribution found for (\S+)|no version of (\S+)|(\S+) was not found in the package registry",
        "the package index has no {0} for this Python ({python}) and machine",
        "see `index_url` and `extra_index_urls` in the engine's file, or ask for another version",
    ),
    (
        r"ResolutionImpossible|No solution found",
        "the packages it needs contradict each other",
        "ask for another version",
    ),
    (r"Permission denied|Read-only file system", "the directory cannot be written", "check who owns it"),
    (r"THESE PACKAGES DO NOT MATCH THE HASHES", "a package arrived damaged", "try again"),
)


def explain(lines: Sequence[str]) -> tuple[str, str]:
    """(cause, hint) of a package tool's failure, from the end of its output."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    for pattern, cause, hint in _CAUSES:
        for line in lines:
            if found := re.search(pattern, line):
                what = next(filter(None, found.groups()), "")
                return cause.format(what, python=python), hint
    said = [line for line in lines if line.strip()]
    errors = [line for line in said if re.match(r"\s*(ERROR|error)\b", line)]
    return (errors or said or ["it said nothing"])[-1].strip(), ""


# -- children ------------------------------------------------------------------------------------------------------


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
