"""A new configuration while models run: all of it or nothing; only what it changes is drained and loaded again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from hyperllamad.config.load import load_config
from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import Config
from hyperllamad.core.errors import ConfigError, HyperLlamaError
from hyperllamad.core.instance import State
from hyperllamad.reload import NEEDS_RESTART, Reloader
from hyperllamad.store import shortnames
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.library import Library
from hyperllamad.supervision.rows import Row
from hyperllamad.supervision.supervisor import Supervisor
from tests.store.files import small_gguf
from tests.supervision import fake


@dataclass
class Place:
    """A configuration directory with models, and what runs by it."""

    root: Path
    supervisor: Supervisor
    catalog: Catalog
    reloader: Reloader
    told: list[Config] = field(default_factory=list)

    def state(self, name: str) -> Row | None:
        return next((row for row in self.supervisor.rows() if row.name == f"{name}:latest"), None)

    async def load(self, name: str, keep_alive: float | None = None) -> Row:
        lease = self.supervisor.lease(self.catalog.resolve(name), keep_alive=keep_alive)
        await lease.granted()
        lease.release()
        row = self.state(name)
        assert row is not None
        return row


def write_model(root: Path, name: str, *lines: str) -> None:
    path = root / "etc" / "models.d" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f'name = "{name}"', f'path = "{root}/{name}.gguf"', *lines]) + "\n")


def read(root: Path) -> Config:
    return load_config(root / "etc", {"HOME": str(root)})


@asynccontextmanager
async def running(root: Path) -> AsyncIterator[Place]:
    for name in ("one", "two"):
        (root / f"{name}.gguf").write_bytes(small_gguf(**{"general.name": name}))
        write_model(root, name)
    settings = read(root)
    homes = fake.FakeHomes(root / "engines")
    catalog = Catalog(settings.paths, settings.models, settings.model)
    supervisor = Supervisor(settings, homes, pace=fake.FAST)
    library = Library(settings, shortnames.load(settings.paths.config))
    reloader = Reloader(
        settings, lambda: read(root), supervisor=supervisor, catalog=catalog, library=library, homes=homes
    )
    place = Place(root, supervisor, catalog, reloader)
    reloader.on_change = lambda news: place.told.append(news.config)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            await group.start(supervisor.run)
            yield place
            supervisor.close(now=True)


@pytest.fixture
async def place(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    fake.install(monkeypatch)
    monkeypatch.setattr("hyperllamad.config.load.resolve", _paths_below(runtime))
    async with running(runtime) as started:
        yield started


def _paths_below(root: Path) -> Any:
    paths = Paths(config=root / "etc", state=root / "state", cache=root / "cache", runtime=root)
    return lambda *_: paths


async def test_what_did_not_change_is_not_touched(place: Place) -> None:
    before = await place.load("one")
    assert await place.reloader.reload() == "the configuration is in force"
    after = place.state("one")
    assert after is not None
    assert (after.pid, after.state) == (before.pid, State.READY)
    assert place.reloader.error == ""


async def test_only_the_changed_model_is_loaded_again(place: Place) -> None:
    one, two = await place.load("one", keep_alive=float("inf")), await place.load("two")
    write_model(place.root, "one", 'args = ["--token-delay", "0.001"]')
    moved: list[str] = []
    assert await place.reloader.reload(moved.append) == "the configuration is in force; one:latest loaded again"
    new, untouched = place.state("one"), place.state("two")
    assert new is not None and untouched is not None
    assert new.state is State.READY
    assert new.pid != one.pid
    assert new.until is None, "it was to stay for ever, and is"
    assert untouched.pid == two.pid
    assert moved == ["requests of 1 model to end", "one:latest to be ready"]


async def test_requests_of_the_old_one_end_first(place: Place) -> None:
    lease = place.supervisor.lease(place.catalog.resolve("one"))
    upstream = await lease.granted()
    write_model(place.root, "one", 'args = ["--token-delay", "0.001"]')
    done: list[str] = []
    drains = anyio.Event()

    async def reload() -> None:
        done.append(await place.reloader.reload(lambda _: drains.set()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reload)
        await drains.wait()
        row = place.state("one")
        assert row is not None and row.state is State.DRAINING
        assert not upstream.died.is_set()
        assert done == []
        lease.release()
    assert done == ["the configuration is in force; one:latest loaded again"]


async def test_a_model_that_was_taken_out_is_unloaded(place: Place) -> None:
    await place.load("two")
    (place.root / "etc/models.d/two.toml").unlink()
    assert await place.reloader.reload() == "the configuration is in force; two:latest unloaded"
    assert place.state("two") is None


async def test_a_broken_configuration_changes_nothing_until_it_is_mended(place: Place) -> None:
    before = await place.load("one")
    write_model(place.root, "one", 'args = ["--token-delay", "0.001"]')
    main = place.root / "etc/hyperllamad.toml"
    main.write_text("[fleet]\nmax_queue = 'many'\n")
    with pytest.raises(ConfigError, match="max_queue"):
        await place.reloader.reload()
    assert "max_queue" in place.reloader.error
    assert place.told == []
    row = place.state("one")
    assert row is not None and row.pid == before.pid, "not the half of it either"
    main.write_text("[fleet]\nmax_queue = 7\n")
    await place.reloader.reload()
    assert place.reloader.error == ""
    assert place.told[-1].fleet.max_queue == 7
    row = place.state("one")
    assert row is not None and row.pid != before.pid


@pytest.mark.parametrize(
    "text", ['[server]\nhost = ":11435"\n', '[admin]\ngroup = "wheel"\n', '[fleet]\nmemory = "1GiB"\n']
)
async def test_what_needs_a_restart_is_refused_by_name(place: Place, text: str) -> None:
    (place.root / "etc/hyperllamad.toml").write_text(text)
    with pytest.raises(ConfigError, match="needs a restart") as refused:
        await place.reloader.reload()
    assert any(f"`{key}`" in refused.value.message for key in NEEDS_RESTART)
    assert place.told == []


async def test_numbers_of_the_fleet_hold_at_once(place: Place) -> None:
    await place.load("one")
    (place.root / "etc/hyperllamad.toml").write_text("[fleet]\nmax_loaded_models = 1\n")
    await place.reloader.reload()
    assert (row := place.state("one")) is not None and row.state is State.READY, "who has a place keeps it"
    await place.load("two")
    assert place.state("one") is None, "and makes room for the next"


async def test_models_that_are_to_be_preloaded_from_now_on_are_loaded(place: Place) -> None:
    (place.root / "etc/hyperllamad.toml").write_text('[fleet]\npreload = ["two"]\n')
    assert await place.reloader.reload() == "the configuration is in force"
    row = place.state("two")
    assert row is not None
    assert (row.state, row.until) == (State.READY, None)


async def test_a_model_that_fails_with_its_new_settings_is_told(place: Place) -> None:
    await place.load("one")
    write_model(place.root, "one", f'args = ["--exit", "{fake.RETRY_POINTLESS}"]')
    with pytest.raises(HyperLlamaError):
        await place.reloader.reload()
    assert place.reloader.error == "", "the configuration itself is in force"
    assert place.told


async def test_who_stops_waiting_does_not_take_it_back(place: Place) -> None:
    lease = place.supervisor.lease(place.catalog.resolve("one"))
    await lease.granted()
    write_model(place.root, "one", 'args = ["--token-delay", "0.001"]')
    with anyio.CancelScope() as scope:
        await place.reloader.reload(lambda _: scope.cancel())
    assert place.told, "it is in force"
    lease.release()
    assert await place.reloader.reload() == "the configuration is in force"


async def test_every_line_about_who_leaves_names_the_model(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever state a reload meets it: what is written afterwards tells people the name, not the instance."""
    fake.install(monkeypatch)
    async with fake.supervised(runtime, restart_budget=0) as supervisor:
        ready = supervisor.lease(fake.model(runtime, "ready"))
        await ready.granted()
        ready.release()
        failed = supervisor.lease(fake.model(runtime, "failed", "--exit", "2"))
        with pytest.raises(HyperLlamaError):
            await failed.granted()
        failed.release()
        starting = supervisor.lease(fake.model(runtime, "starting", "--slow", "60"))
        assert [row.state for row in supervisor.rows()] == [State.READY, State.FAILED, State.STARTING]
        leaving = supervisor.configure(fake.configuration(runtime, stop_timeout="1s"), lambda _: None)
        assert {str(name) for name in leaving.values()} == {"ready:latest", "failed:latest", "starting:latest"}
        starting.release()
        await fake.wait_unloaded(supervisor)
        told = [event for event in supervisor.events.last(100) if event.record.what == "unloaded"]
        assert {event.name for event in told} == {"ready:latest", "failed:latest", "starting:latest"}
        assert not any(event.record.key in event.why for event in supervisor.events.last(100))
