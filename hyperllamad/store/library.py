"""The store as the doors see it: every change to what there is, as calls that may wait and steps that can be shown.

Disk work runs in a worker thread, one job at a time, with a catalogue of its own; the daemon's other Catalog sees the
results by looking at the disk.  Nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from os import environ
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.abc
import anyio.to_thread

from hyperllamad.config.tables import Config
from hyperllamad.core.errors import ModelNotFoundError
from hyperllamad.core.names import ModelName
from hyperllamad.store import disk, garbage, local, shortnames, uploaded
from hyperllamad.store.blobs import Blobs
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.fetch_wire import Request
from hyperllamad.store.garbage import Garbage
from hyperllamad.store.overlays import Overlay
from hyperllamad.store.picking import Pick, Picker
from hyperllamad.store.pull import Pulls, Watch
from hyperllamad.store.shortnames import ShortNames
from hyperllamad.store.steps import SUCCESS, WRITING, OnStep, Step, ignore
from hyperllamad.store.variants import Variants, Wanted, check

T = TypeVar("T")


class Library:
    """Copy, create, delete, pull, blobs and garbage.  `run` must be running for pulls."""

    def __init__(
        self,
        config: Config,
        names: ShortNames,
        *,
        picker: Picker | None = None,
        environ: Mapping[str, str] = environ,
    ) -> None:
        """`picker` is asked at each pull of a name that leaves a choice; without one, what every machine can run."""
        self._paths = config.paths
        self.configure(config, names)
        self._picker = picker or Picker()
        self._pulls = Pulls(environ)
        self._one = anyio.CapacityLimiter(1)
        self.blobs = Blobs(config.paths.models)

    def configure(self, config: Config, names: ShortNames) -> None:
        """Go by another configuration from now on; jobs and pulls that are under way end as they began.

        A catalogue is one thread's at a time, and a job may be using the present one: so here is another.
        """
        self._catalog = Catalog(self._paths, config.models, config.model)
        self._variants = Variants(self._catalog)
        self.names = names

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the downloads until cancelled."""
        await self._pulls.run(task_status=task_status)

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name; see Variants.copy for what it raises."""
        await self._job(partial(self._variants.copy, source, destination))

    async def delete(self, name: str) -> None:
        """Remove a model or a variant; see Variants.delete for what it raises."""
        await self._job(partial(self._variants.delete, name))

    async def collect_garbage(self, *, dry_run: bool) -> tuple[Garbage, ...]:
        """Remove what no name refers to, or only say what that is.  Raises StoreError."""
        return await self._job(partial(garbage.collect, self._catalog, dry_run=dry_run))

    async def pull(self, name: str) -> Watch:
        """Watch the pull of a model, begun now unless somebody else's goes on.

        Raises at once InvalidNameError, UnknownShortNameError, RepositoryNotFoundError, ClosingError and InUseError (a
        model that did not come from a hub has the name); the rest comes out of the Watch: PullFailedError and its
        kinds, DiskFullError, StoreError, UnsupportedError.

        The caller must leave() it: `with await library.pull(name) as watch: async for step in watch: ...`
        """
        parsed = ModelName.parse(name)
        entry = self.names.open_choice(parsed)
        if entry is None:
            shortnames.source_of(parsed, self.names, ())  # a name that leads nowhere is refused first
        target: Path = await self._job(partial(self._variants.pull_target, parsed))
        pick = await self._picker.pick(entry, target) if entry else Pick(await self._picker.formats())
        source = shortnames.source_of(parsed, self.names, pick.kinds)
        request = Request(
            name=parsed.short,
            repository=source.repository,
            target=str(target),
            store=str(self._catalog.store),
            variant=source.variant,
            kind=source.kind,
            reserve=disk.RESERVE,
        )
        placed = partial(self._job, partial(self._variants.placed, parsed, target))
        return self._pulls.watch(request, placed, note=pick.note, caution=pick.caution)

    async def create(self, wanted: Wanted, *, on_step: OnStep = ignore) -> None:
        """Make a model of files, uploaded or local ones, or a variant of a model, which is pulled first if need be.

        Steps come as Ollama's lines do and end with "success".  Raises what Variants.create, uploaded.build,
        local.register and pull() raise.
        """
        name = check(wanted)
        if wanted.files or wanted.path:
            await self._create_from_files(name, wanted, on_step)
            return
        steps: list[Step] = []
        create = partial(self._variants.create, wanted, on_step=steps.append)
        try:
            await self._job(create)
        except ModelNotFoundError:
            steps.clear()
            with await self.pull(wanted.base) as watch:
                async for step in watch:
                    if step != SUCCESS:
                        on_step(step)
            await self._job(create)
        for step in steps:
            on_step(step)

    async def _create_from_files(self, name: ModelName, wanted: Wanted, on_step: OnStep) -> None:
        steps: list[Step] = []
        target: Path = await self._job(partial(self._variants.target, name))
        accept = partial(self._variants.check_adapters, wanted)
        if wanted.path:
            await self._job(partial(local.register, name, target, Path(wanted.path), steps.append, accept=accept))
        else:
            await self._job(
                partial(uploaded.build, name, target, wanted.files, self.blobs, steps.append, accept=accept)
            )
        await self._job(partial(self._variants.placed, name, target))
        if wanted.adds:
            await self._job(partial(self._variants.add, wanted, Overlay(name=name, base=name), steps.append))
        else:
            steps += (WRITING, SUCCESS)
        for step in steps:
            on_step(step)

    async def receive(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        """Store an upload; see Blobs.receive."""
        return await self.blobs.receive(digest, chunks)

    async def _job(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._one)
