"""Python packages for others than the daemon: virtual environments, pip and uv, each run as a child.

Owns how a package tool is called (pip here, uv in uv.py), how its output becomes progress and how its failure becomes a
sentence (words.py).  Knows no engine and no model: callers say what to install and where.  Children live in sessions of
their own and are ended whole when the caller is cancelled (children.py).
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperllamad.core.errors import InstallFailedError
from hyperllamad.packages.children import END_GRACE, KEPT_LINES, ToolFailedError, run_tool
from hyperllamad.packages.words import OnProgress, PipReader, Progress, explain, ignore

_SETTING = re.compile(r"(:env:|global|install)\.([a-z-]+)='(.*)'")  # a line of `pip config list`

__all__ = [
    "END_GRACE",
    "KEPT_LINES",
    "Index",
    "OnProgress",
    "Pip",
    "PipReader",
    "Progress",
    "ToolFailedError",
    "create_environment",
    "download",
    "explain",
    "ignore",
    "run_tool",
]


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
        self.python = python
        self.index = index
        self.temporary = temporary
        self._env = {"TMPDIR": str(temporary)} if temporary else {}
        self.on_progress = on_progress
        self._bar: tuple[str, ...] = ()

    async def upgrade(self) -> None:
        """Bring pip itself up to date where the index has a newer one: old ones cannot resolve what engines ask."""
        try:
            await self._pip("install", "--upgrade", *self.index.options, "pip")
        except ToolFailedError:
            self.on_progress(Progress("creating", "pip stays as it is: the index has no newer one"))
        lines = await run_tool((*self._command, "--version"))
        version = re.match(r"pip (\d+)\.(\d+)", lines[-1] if lines else "")
        if version and (int(version[1]), int(version[2])) >= (24, 1):
            self._bar = ("--progress-bar", "raw")  # lines a program can read

    async def install(self, requirements: Sequence[str], *, constraints: Path | None = None) -> None:
        """Install; raises ToolFailedError.  Constraints hold only what is asked for anyway to exact versions."""
        held = ("--constraint", str(constraints)) if constraints else ()
        await self._pip("install", *self._bar, *self.index.options, *held, *requirements)

    async def install_exactly(self, lock: Path) -> None:
        """Install what `lock` lists with its hashes, and nothing that those ask for; raises ToolFailedError."""
        exactly = ("--no-deps", "--require-hashes", "--requirement", str(lock))
        await self._pip("install", *self._bar, *self.index.options, *exactly)

    async def check(self) -> None:
        """Whether everything that is asked for is there; raises ToolFailedError with what is missing."""
        await self._pip("check")

    async def settings(self) -> dict[str, str]:
        """The user's own configuration of pip, by its keys ("index-url"); environment before files."""
        lines = await run_tool((*self._command, "config", "list"))
        stated = [found for line in lines if (found := _SETTING.fullmatch(line))]
        return {found[2]: found[3] for found in sorted(stated, key=lambda one: one[1] == ":env:")}

    async def uninstall(self, names: Sequence[str]) -> None:
        """Take packages out again; those that are not there do not matter."""
        await self._pip("uninstall", "--yes", *names)

    async def download(self, requirement: str, directory: Path) -> Path:
        """The one wheel of `requirement`, without what it depends on, put into `directory`; its path."""
        before = _wheels(directory)
        only = ("--no-deps", "--only-binary", ":all:", "--dest", str(directory))
        await self._pip("download", *self._bar, *self.index.options, *only, requirement)
        new = _wheels(directory) - before or before
        if len(new) != 1:
            raise InstallFailedError(f"{requirement}: expected one wheel, found {len(new)}")
        return new.pop()

    async def _pip(self, *arguments: str) -> None:
        reader = PipReader(self.on_progress)
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
