"""Installing an engine: a home is filled beside the old one, tried, and only then becomes the one in use.

1 check (variant, version, room on the disk)  2 create the environment  3 download and install  4 take out what is not
wanted  5 try it  6 read what it can run  7 write home.json  8 switch `current.json`.  Whatever fails or is cancelled
before 7 leaves nothing behind; before 8 the old home stays in use.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from hyperllamad import packages
from hyperllamad.config.tables import EngineTable
from hyperllamad.core.errors import InstallFailedError
from hyperllamad.engines import host, lockfile, registries
from hyperllamad.engines.base import Engine, Home, Recipe
from hyperllamad.engines.homes import FILE, Homes
from hyperllamad.engines.lockfile import Lock
from hyperllamad.packages import Index, OnProgress, Pip, Progress, ToolFailedError, uv
from hyperllamad.packages.uv import Uv

LOCKS = Path(__file__).with_name("locks")
SPARE = 1.6  # times the finished home: downloads lie beside it until they are unpacked
SELF_TEST_LIMIT = 300.0  # seconds; the first import of vLLM writes bytecode for minutes on a slow disk
_UNRESOLVABLE = re.compile(r"No matching distribution found for|ResolutionImpossible|No solution found")
_TORCH = re.compile(r"No matching distribution found for torch\b|torch==\S+\+")
_NOT_HERE = re.compile(_UNRESOLVABLE.pattern + r"|has no wheels|is not supported on")  # the same of a lock
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,63}")


class LockTooShortError(ToolFailedError):
    """What is locked is there, and another Python or machine needs more than that."""


async def install(
    engine: Engine,
    *,
    version: str = "",
    variant: str = "",
    homes: Homes,
    table: EngineTable,
    on_progress: OnProgress = packages.ignore,
) -> Home:
    """Install `engine` and make it the one in use; a home that is there already is only made that.

    `version` and `variant` empty = as the configuration states, else the one this release was tried with, else what
    suits this machine.  Raises InstallFailedError; cancelling it is safe at any moment.
    """
    on_progress(Progress("checking"))
    variant, recipe = _recipe(engine, variant or table.variant)
    version = _version(engine, recipe, version or table.version)
    wanted = Home(f"{engine.name}-{version}-{variant}", engine.name, version, variant, path="")
    await anyio.to_thread.run_sync(homes.sweep)
    if there := homes.installed(wanted.id):
        _use(homes, there)
        on_progress(Progress("done", f"{there.id} is installed already"))
        return there
    what = f"{engine.title} {version}"
    with homes.claim(wanted.id) as directory:
        _check_room(engine, recipe, directory)
        try:
            home = await _fill(directory, wanted, recipe, table, on_progress)
            homes.finish(home)
        except InstallFailedError as failure:
            raise InstallFailedError(f"{what} was not installed: {failure.message}", hint=failure.hint) from failure
        except OSError as failure:
            reason = f"{failure.filename or directory}: {failure.strerror}"
            raise InstallFailedError(f"{what} was not installed: {reason}") from failure
        finally:
            if not (directory / FILE).exists():
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(partial(shutil.rmtree, directory, ignore_errors=True))
    _use(homes, home)
    on_progress(Progress("done", home.id))
    return home


def _use(homes: Homes, home: Home) -> None:
    try:
        homes.use(home)
    except OSError as failure:
        what = f"{home.id} is installed, but cannot be made the one in use"
        hint = "see that there is room and that it may be written, then install it again: that takes no time"
        raise InstallFailedError(
            f"{what}: {failure.filename or homes.root}: {failure.strerror}", hint=hint
        ) from failure


# -- what is asked for ---------------------------------------------------------------------------------------------


def _recipe(engine: Engine, variant: str) -> tuple[str, Recipe]:
    possible = ", ".join(engine.variants)
    if not variant:
        variant = host.device() if host.device() in engine.variants else next(iter(engine.variants))
    if variant not in engine.variants:
        raise InstallFailedError(f'{engine.title} has no variant "{variant}"', hint=f"it has: {possible}")
    return variant, engine.variants[variant]


def _version(engine: Engine, recipe: Recipe, version: str) -> str:
    version = version or recipe.version or engine.version
    if not _VERSION.fullmatch(version):
        raise InstallFailedError(f'"{version}" is no version', hint=f"a version looks like {engine.version}")
    return version


def _check_room(engine: Engine, recipe: Recipe, directory: Path) -> None:
    needed, free = int(recipe.disk * SPARE), shutil.disk_usage(directory.parent).free
    if free < needed:
        raise InstallFailedError(
            f"{engine.title} needs {_size(needed)} in {directory.parent} while it is installed, {_size(free)} are free",
            hint="make room, or set `paths.state` to a larger disk",
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


@dataclass(frozen=True, slots=True)
class Tools:
    """What installs into one home: uv where the machine has it, else pip."""

    pip: Pip
    main: Pip | Uv
    downloads: Path

    @classmethod
    async def of(cls, pip: Pip, downloads: Path) -> Tools:
        found = await uv.find(pip)
        if found is None:
            await pip.upgrade()
        pip.on_progress(Progress("creating", "with uv" if found else "with pip: there is no uv, which is faster"))
        return cls(pip, found or pip, downloads)

    async def uv(self) -> Uv:
        """uv, fetched where the machine has none."""
        return self.main if isinstance(self.main, Uv) else await uv.fetch(self.pip)


# -- filling a home ------------------------------------------------------------------------------------------------


async def _fill(directory: Path, wanted: Home, recipe: Recipe, table: EngineTable, on_progress: OnProgress) -> Home:
    """Steps 2 to 6; the finished home, not yet written down."""
    on_progress(Progress("creating", str(directory)))
    await anyio.to_thread.run_sync(partial(shutil.rmtree, directory, ignore_errors=True))
    python = await packages.create_environment(directory)
    downloads = directory / "downloads"
    downloads.mkdir()
    index = Index(table.index_url, table.extra_index_urls)
    tools = await Tools.of(Pip(python, index=index, temporary=downloads, on_progress=on_progress), downloads)
    await _install(tools, wanted, recipe)
    if recipe.remove:
        await tools.main.uninstall(recipe.remove)
    await anyio.to_thread.run_sync(partial(shutil.rmtree, downloads, ignore_errors=True))
    on_progress(Progress("testing"))
    await _try(python, recipe)
    home = replace(wanted, path=str(directory), python=str(python), installed_at=time.time())
    return await anyio.to_thread.run_sync(_look, home)


async def _install(tools: Tools, wanted: Home, recipe: Recipe) -> None:
    """With what this release was tried with; without it where that does not exist for this Python or machine.

    A package that is there and is not the one that was tried ends the install.
    """
    requirements = [text.format(version=wanted.version) for text in recipe.requirements]
    lock = lockfile.read(LOCKS / f"{wanted.id}.txt")
    if lock.exact:
        try:
            await _install_locked(tools, lock, recipe)
        except ToolFailedError as failure:
            if not isinstance(failure, LockTooShortError) and not any(_NOT_HERE.search(ln) for ln in failure.lines):
                raise
            tools.pip.on_progress(
                Progress("creating", "what was tried does not exist for this Python: taking what fits")
            )
        else:
            return
    try:
        await _resolve(tools, requirements, recipe, lock.held(tools.downloads))
    except ToolFailedError as failure:
        if not lock.pins or not any(_UNRESOLVABLE.search(line) for line in failure.lines):
            raise
        await _resolve(tools, requirements, recipe, None)


async def _install_locked(tools: Tools, lock: Lock, recipe: Recipe) -> None:
    """First what has no hash, since each Python has a build of its own; then the rest, which is checked."""
    if lock.loose:
        await _resolve(tools, ["--no-deps", *lock.loose], recipe, None)
    await tools.main.install_exactly(lock.exactly(tools.downloads))
    try:
        await tools.main.check()
    except ToolFailedError as failure:
        # It says more than is asked here, as that a wheel's tags are not this machine's: it was installed all the same.
        if any("not installed" in line for line in failure.lines):
            raise LockTooShortError(failure.message, lines=failure.lines) from failure


async def _resolve(tools: Tools, requirements: Sequence[str], recipe: Recipe, constraints: Path | None) -> None:
    try:
        await tools.main.install(requirements, constraints=constraints)
    except ToolFailedError as failure:
        if not recipe.torch_backend or not any(_TORCH.search(line) for line in failure.lines):
            raise
        fetched = await tools.uv()
        await fetched.install(requirements, torch_backend=recipe.torch_backend, constraints=constraints)


async def _try(python: Path, recipe: Recipe) -> None:
    if not recipe.self_test:
        return
    try:
        await packages.run_tool((str(python), *recipe.self_test), cwd=str(python.parent), limit=SELF_TEST_LIMIT)
    except ToolFailedError as failure:
        hint = "ask for another version, or see whether this machine is supported by it"
        raise InstallFailedError(f"it does not run here: {failure.message}", hint=hint) from failure


def _look(home: Home) -> Home:
    """Step 6: what it can run and how much room it takes."""
    directory = Path(home.path)
    try:
        architectures = registries.read(home.engine, directory, home.device)
    except (OSError, SyntaxError):
        # A version whose source looks different: the engine itself will say what it does not know.
        architectures = frozenset()
    seen: dict[tuple[int, int], int] = {}  # by device and inode: hard links count once
    for path in directory.rglob("*"):
        status = path.lstat()
        seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return replace(home, architectures=architectures, size=sum(seen.values()))
