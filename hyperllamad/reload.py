"""A new configuration while the daemon runs: the whole of it or nothing, and what it changes is loaded anew.

Reading may fail and changes nothing; taking over is one step without a wait in it.  Then whatever runs otherwise than
the new configuration says has been told to leave after its requests, and is loaded again.  Owns the list of keys that
need a restart; must not know where the wish to reload came from.
"""

from __future__ import annotations

import contextlib
import logging
import operator
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread

from hyperllamad.config.tables import Config
from hyperllamad.core.durations import FOREVER
from hyperllamad.core.errors import ClosingError, ConfigError, HyperLlamaError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Model
from hyperllamad.core.names import ModelName
from hyperllamad.engines import families
from hyperllamad.engines.homes import Homes
from hyperllamad.keys import KeyRing
from hyperllamad.store import shortnames
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.library import Library
from hyperllamad.store.shortnames import ShortNames
from hyperllamad.supervision.broadcast import Watch
from hyperllamad.supervision.rows import Change
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad")

# What sockets, directories and measurements were made with at start.
NEEDS_RESTART = (
    *("server.host", "server.max_connections", "server.connections_per_address"),
    *("server.header_timeout", "server.idle_timeout", "server.unread_timeout"),
    *("fleet.memory", "fleet.adopt_within", "admin.group", "paths.state", "paths.cache", "paths.runtime"),
)
GOES = frozenset({State.READY, State.STARTING, State.ASLEEP, State.WAKING, State.BACKOFF})  # worth loading again


@dataclass(frozen=True, slots=True)
class News:
    """Everything that was read, and found good."""

    config: Config
    names: ShortNames
    keys: KeyRing


def ignore(_: str) -> None:
    """For callers who do not look on."""


class Reloader:
    """Holds the configuration that is in force."""

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config],
        *,
        supervisor: Supervisor,
        catalog: Catalog,
        library: Library,
        homes: Homes,
    ) -> None:
        """`read` gives the configuration as it is now; raises ConfigError."""
        self.config = config
        self.error = ""
        self.on_change: Callable[[News], None] = lambda _: None  # for what is made anew by others
        self._read = read
        self._supervisor = supervisor
        self._catalog = catalog
        self._library = library
        self._homes = homes
        self._one = anyio.Lock()

    async def reload(self, moved: Callable[[str], None] = ignore) -> str:
        """Take the configuration as it is now; `moved` is told what is waited for.

        Raises ConfigError when it is wrong or needs a restart (nothing has changed then), and what a model that is to
        be loaded again fails with (the configuration is in force all the same).  Cancelling it ends the wait only.
        """
        with self._supervisor.watch() as changes:
            async with self._one:
                news = await self._news()
                again = self._worth_loading()
                fresh = set(news.config.fleet.preload) - set(self.config.fleet.preload)
                leaving = self._take(news)
            await _wait_gone(changes, set(leaving), moved)
        names = {str(name): again[key] for key, name in leaving.items() if key in again}
        replaced = {name: keep_alive for name, keep_alive in names.items() if self._find(ModelName.parse(name))}
        await self._load({**replaced, **dict.fromkeys(fresh, FOREVER)}, moved)
        return _summary({str(name) for name in leaving.values() if not self._find(name)}, replaced)

    async def _news(self) -> News:
        try:
            return await anyio.to_thread.run_sync(self._look)
        except ConfigError as failure:
            self.error = str(failure)
            log.error("the configuration stays as it was: %s", failure)
            raise

    def _look(self) -> News:
        """Read everything; raises ConfigError.  In a thread: files may be on a slow disk."""
        config = self._read()
        _refuse_what_needs_a_restart(self.config, config)
        names = shortnames.load(config.paths.config)
        families.look()
        keys = KeyRing(config)
        if keys.required:
            keys.load()
        return News(config, names, keys)

    def _take(self, news: News) -> dict[str, ModelName]:
        """From here on it is in force; the instances that leave for it, and the names they were loaded under."""
        config = news.config
        self.config = config
        logging.getLogger("hyperllamad").setLevel(logging.DEBUG if config.server.debug else logging.INFO)
        families.forget()
        self._homes.configure(config.engine)
        self._catalog.configure(config.models, config.model)
        self._library.configure(config, news.names)
        self.on_change(news)
        leaving = self._supervisor.configure(config, self._find)
        self.error = ""
        log.info("the configuration is in force", extra=fields(leaving=", ".join(map(str, leaving.values())) or None))
        return leaving

    def _find(self, name: ModelName) -> Model | None:
        with contextlib.suppress(HyperLlamaError):
            return self._catalog.resolve(str(name))
        return None

    def _worth_loading(self) -> dict[str, float | None]:
        """By instance, for how long it was to stay: for ever, or as configured."""
        return {
            row.instance: FOREVER if row.until is None and row.state is State.READY else None
            for row in self._supervisor.rows()
            if row.state in GOES
        }

    async def _load(self, names: dict[str, float | None], moved: Callable[[str], None]) -> None:
        failures: list[HyperLlamaError] = []
        async with anyio.create_task_group() as tasks:
            for name, keep_alive in names.items():
                moved(f"{', '.join(names)} to be ready")
                tasks.start_soon(partial(self._load_one, name, keep_alive, failures))
        for failure in failures:
            raise failure

    async def _load_one(self, name: str, keep_alive: float | None, failures: list[HyperLlamaError]) -> None:
        try:
            lease = self._supervisor.lease(self._catalog.resolve(name), keep_alive=keep_alive)
            try:
                await lease.granted()
            finally:
                lease.release()
        except HyperLlamaError as failure:
            log.error("%s is not loaded with the new configuration: %s", name, failure)
            failures.append(failure)


async def _wait_gone(changes: Watch[Change], leaving: set[str], moved: Callable[[str], None]) -> None:
    """Until nothing is left of `leaving`, by instance; raises ClosingError when the daemon ends before."""
    if not leaving:
        return
    moved(f"requests of {len(leaving)} model{'s' if len(leaving) > 1 else ''} to end")
    async for change in changes:
        if change.state is State.GONE:
            leaving.discard(change.instance)
        if not leaving:
            return
    raise ClosingError


def _summary(gone: Collection[str], replaced: Collection[str]) -> str:
    parts = [f"{', '.join(sorted(replaced))} loaded again"] if replaced else []
    parts += [f"{', '.join(sorted(gone))} unloaded"] if gone else []
    return "the configuration is in force" + "".join(f"; {part}" for part in parts)


def _refuse_what_needs_a_restart(old: Config, new: Config) -> None:
    for key, before, now in _differences(old, new):
        raise ConfigError(
            f"`{key}` has changed from {_shown(before)} to {_shown(now)}, which needs a restart",
            hint="restart hyperllamad, or change it back and reload",
        )


def _differences(old: Config, new: Config) -> Iterator[tuple[str, object, object]]:
    for key in NEEDS_RESTART:
        look = operator.attrgetter(key)
        if look(old) != look(new):
            yield key, look(old), look(new)


def _shown(value: object) -> str:
    return f'"{value}"' if not isinstance(value, int) else str(value)
