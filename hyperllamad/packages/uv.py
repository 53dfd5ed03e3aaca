"""uv, which installs faster than pip and knows where builds of torch lie that are not in the ordinary index.

Used where it is found; it reads none of pip's configuration, so what that says of indexes is handed to it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from hyperllamad.packages import Index, Pip, PipReader, ToolFailedError, run_tool

# pip's keys, and how uv is told the same.
_OPTIONS = {
    "index-url": "--index-url",
    "extra-index-url": "--extra-index-url",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}
_VARIABLES = {"cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY"}


class Uv:
    """uv at work on one virtual environment; what Pip does, in the same words."""

    def __init__(self, program: str, pip: Pip, settings: Mapping[str, str]) -> None:
        """`pip` is that of the environment, `settings` are its; downloads, and uv's cache, go where pip's go."""
        self._command = (program, "pip")
        self._python = ("--python", str(pip.python))
        self._indexes = tuple(_indexes(settings, pip.index))
        # The user's own; not beside hashes, where uv wants every line to have one.
        self._held = tuple(part for path in settings.get("constraint", "").split() for part in ("--constraint", path))
        self._env = {variable: settings[key] for key, variable in _VARIABLES.items() if settings.get(key)}
        if pip.temporary:  # what is beside the environment can be linked into it, and goes when it is done
            self._env |= {"TMPDIR": str(pip.temporary), "UV_CACHE_DIR": str(pip.temporary / "uv")}
        self._on_progress = pip.on_progress

    async def install(
        self, requirements: Sequence[str], *, constraints: Path | None = None, torch_backend: str = ""
    ) -> None:
        """Install; raises ToolFailedError.  With a backend such as "cpu", torch comes from the index of its builds."""
        held = (*self._held, *(("--constraint", str(constraints)) if constraints else ()))
        backend = ("--torch-backend", torch_backend) if torch_backend else ()
        await self._run("install", *self._python, *backend, *self._indexes, *held, *requirements)

    async def install_exactly(self, lock: Path) -> None:
        """Install what `lock` lists with its hashes, and nothing that those ask for; raises ToolFailedError."""
        exactly = ("--no-deps", "--require-hashes", "--requirement", str(lock))
        await self._run("install", *self._python, *self._indexes, *exactly)

    async def check(self) -> None:
        """Whether everything that is asked for is there; raises ToolFailedError with what is missing."""
        await self._run("check", *self._python)

    async def uninstall(self, names: Sequence[str]) -> None:
        """Take packages out again; those that are not there do not matter."""
        await self._run("uninstall", *self._python, *names)

    async def _run(self, *arguments: str) -> None:
        await run_tool((*self._command, *arguments), on_line=PipReader(self._on_progress).read, env=self._env)


async def find(pip: Pip) -> Uv | None:
    """The uv of this machine, for the environment of `pip`; None where there is none, or it does not run."""
    if not (program := shutil.which("uv")):
        return None
    try:
        await run_tool((program, "--version"))
    except ToolFailedError:
        return None
    return Uv(program, pip, await pip.settings())


async def fetch(pip: Pip) -> Uv:
    """The same; where there is none, one is put into the environment.  Raises ToolFailedError."""
    if found := await find(pip):
        return found
    await pip.install(["uv"])
    return Uv(str(pip.python.with_name("uv")), pip, await pip.settings())


def _indexes(settings: Mapping[str, str], index: Index) -> list[str]:
    """Options: the engine's own index takes the place of pip's, further ones are added, the best version wins."""
    options = [*index.options]
    for key, option in _OPTIONS.items():
        if key == "index-url" and index.url:
            continue
        # A value may hold several, as in the file that it comes from.
        options += [part for value in settings.get(key, "").replace("\\n", " ").split() for part in (option, value)]
    if settings.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        options.append("--no-index")
    return [*options, "--index-strategy", "unsafe-best-match"]  # what pip does
