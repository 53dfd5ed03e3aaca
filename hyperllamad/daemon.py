"""The whole: builds every room, starts them in order, stops them in reverse.  The only file that knows them all.

At start: directories, the one-daemon lock, sockets (a taken address must be known before anything runs), supervision,
control, front, READY.  At the end: the fleet drains while both doors still answer, then front closes, control last.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from hyperllamad import __version__, connections, doors, handover, heartbeat, pages, signals, suspend
from hyperllamad import demo as demonstration
from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import Config
from hyperllamad.control.app import create_app as create_control
from hyperllamad.control.rooms import Rooms
from hyperllamad.core.durations import FOREVER
from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.gpu_health import GpuNews
from hyperllamad.doors import AddressTakenError, Current, Door, Doors, answering
from hyperllamad.engines import compiled
from hyperllamad.engines.homes import Homes
from hyperllamad.front.app import create_app as create_front
from hyperllamad.front.hosts import is_loopback
from hyperllamad.front.ports import Services
from hyperllamad.keys import KeyRing
from hyperllamad.notifier import Notifier
from hyperllamad.reload import News, Reloader
from hyperllamad.store import shortnames
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.library import Library
from hyperllamad.store.picking import Picker
from hyperllamad.supervision import machine
from hyperllamad.supervision.gpu_watch import GpuWatch
from hyperllamad.supervision.gpus import GpuReader
from hyperllamad.supervision.meter import Meter
from hyperllamad.supervision.supervisor import Supervisor
from hyperllamad.telemetry import Metrics, fields

log = logging.getLogger(__name__)


async def main(config: Config, read: Callable[[], Config], demo: str = "", *, prepare_only: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; raises HyperLlamaError when it cannot even begin.

    `read` gives the configuration as it is when one is asked to reload it.  `demo` names an engine: it and the demo
    model are installed first where missing; with `prepare_only` that is all.
    """
    _make_directories(config.paths)
    if demo:
        entry = await demonstration.prepare(config, demo)
        config, from_files = demonstration.with_model(config, entry), read

        def read() -> Config:
            return demonstration.with_model(from_files(), entry)

        if prepare_only:
            return
    keys = KeyRing(config)
    if keys.required:
        keys.load()
    with contextlib.ExitStack() as held:
        held.enter_context(_only_one(config.paths.runtime))
        _fetch_compiled(config.paths)
        opened = held.enter_context(doors.opened(config))
        _warn_who_may_come_in(keys, opened)
        await _serve(config, read, keys, opened, demo=demo)


async def _serve(config: Config, read: Callable[[], Config], keys: KeyRing, opened: Doors, *, demo: str) -> None:
    homes = Homes(config.paths.engines, config.engine)
    catalog = Catalog(config.paths, config.models, config.model)
    gpus = GpuReader()
    watch = GpuWatch(gpus, lambda: any(home.device == "cuda" for home in homes.in_use()))
    look = partial(machine.read, gpus)
    library = Library(config, shortnames.load(config.paths.config), picker=Picker(look, homes.kinds))
    meter = Meter(gpus, host_limit=config.fleet.memory_bytes, known=lambda: watch.known)
    supervisor = Supervisor(config, homes, meter=meter, resolve=catalog.resolve, verdict=watch.verdict)
    metrics, notifier = Metrics(), Notifier()
    metrics.watch(supervisor.rows)
    url = opened.url
    reloader = Reloader(config, read, supervisor=supervisor, catalog=catalog, library=library, homes=homes)
    rooms = Rooms(
        config=config,
        supervisor=supervisor,
        catalog=catalog,
        library=library,
        homes=homes,
        machine=look,
        keys=keys,
        reloader=reloader,
        started_at=time.time(),
        url=url,
        gpu_problems=watch.problems,
    )
    services = Services(catalog, supervisor, library, config, metrics, __version__, keys)
    api, admin = _apps(services, rooms, reloader)
    async with anyio.create_task_group() as root:
        reload = partial(root.start_soon, _reload, reloader, notifier)
        stop: signals.Stop = await root.start(signals.watch, root.cancel_scope, reload)
        async with heartbeat.patience(notifier):
            await _wait_for_gpu(watch, config, notifier, stop)
            await root.start(supervisor.run)
            await root.start(library.run)
        root.start_soon(heartbeat.beat, notifier, supervisor)
        bounds = config.server.bounds(connections.raise_descriptor_limit())
        async with answering(admin, [opened.admin]), answering(api, opened.api, bounds) as front:
            doing = partial(_doing, supervisor, watch, url)
            tell = partial(_tell, notifier, supervisor, doing)
            tell()  # before: who waits for READY reads it
            notifier.ready()
            root.start_soon(_follow_gpus, root, watch, supervisor, tell)
            root.start_soon(heartbeat.tell_status, notifier, supervisor, doing)
            log.info("ready", extra=fields(url=url, models=len(catalog.list()), engines=len(homes.all())))
            root.start_soon(anyio.to_thread.run_sync, pages.gather)
            root.start_soon(_sweep_homes, homes)
            root.start_soon(suspend.follow, supervisor, watch, lambda: reloader.config.fleet.rest_before_sleep)
            if config.fleet.adopt_within_seconds:
                root.start_soon(handover.warn_of_kills)
            for name in config.fleet.preload:
                root.start_soon(_preload, catalog, supervisor, name)
            if demo:
                root.start_soon(demonstration.greet, catalog, supervisor, url)
            await stop.asked.wait()
            hand_on = {"handed_on": opened.handed_on, "restarts": stop.restarts}
            await _end(notifier, supervisor, reloader.config, front, **hand_on)
        root.cancel_scope.cancel()
    log.info("stopped")


async def _end(
    notifier: Notifier, supervisor: Supervisor, now: Config, front: Door, *, handed_on: bool, restarts: bool
) -> None:
    """Let everybody finish, or hand engines and clients on to the next life; returns when nothing is left."""
    notifier.stopping()
    leave = now.fleet.adopt_within_seconds > 0 and (restarts or await handover.is_restart())
    log.info("restarting" if leave else "stopping", extra=fields(grace=now.server.grace))
    async with heartbeat.patience(notifier):
        if handed_on:
            # New clients wait at the sockets for the next life: who is in already is served to the end first.
            with anyio.move_on_after(now.server.grace):
                await front.close()
        supervisor.close(now=handed_on, leave=leave)
        await supervisor.wait_empty()


async def _wait_for_gpu(watch: GpuWatch, config: Config, notifier: Notifier, stop: signals.Stop) -> None:
    """A driver that comes late gets its time, unless somebody wants us to stop."""
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            await watch.wait_arrived(config.fleet.gpu_wait_seconds, notifier.status)
            tasks.cancel_scope.cancel()

        tasks.start_soon(wait)
        await stop.asked.wait()
        tasks.cancel_scope.cancel()


async def _follow_gpus(
    root: anyio.abc.TaskGroup, watch: GpuWatch, supervisor: Supervisor, tell: Callable[[], None]
) -> None:
    """What befalls a GPU befalls the models on it, and `systemctl status` says so."""

    def heard(news: GpuNews) -> None:
        if news.problem:
            supervisor.interruptions.lose(news.gpu.uuid, news.problem)
        else:
            root.start_soon(supervisor.machine_changed)
        tell()

    watch.on_news = heard
    await watch.run()


def _tell(notifier: Notifier, supervisor: Supervisor, doing: Callable[[], str]) -> None:
    notifier.status(heartbeat.sentence(doing(), supervisor.census()))


def _doing(supervisor: Supervisor, watch: GpuWatch, url: str) -> str:
    """What `systemctl status` says we do, and what is wrong with the machine."""
    if supervisor.closing:
        return "stopping"
    if supervisor.interruptions.paused:
        return "resting while the machine sleeps"
    return "; ".join((f"serving {url}", *watch.problems()))


def _warn_who_may_come_in(keys: KeyRing, opened: Doors) -> None:
    """Of a door that lets in nobody, or whoever can reach it.  The sockets count: systemd may have opened them."""
    if keys.required:
        if not keys.all():
            log.warning("API keys are required and there is none: `hyperllamactl key new NAME` makes one")
        return
    hosts = [str(sock.getsockname()[0]) for sock in opened.api]
    if exposed := [host for host in hosts if not is_loopback(host)]:
        log.warning(
            "whoever can reach this machine may use the API: set `keys.required`, or bind to loopback",
            extra=fields(addresses=",".join(exposed)),
        )


def _apps(services: Services, rooms: Rooms, reloader: Reloader) -> tuple[Current, Current]:
    """What answers at the two doors, now and after each reload."""
    api, admin = Current(create_front(services)), Current(create_control(rooms))

    def changed(news: News) -> None:
        nonlocal services, rooms
        rooms.keys.take(news.keys)
        if _told_of(news.config) != _told_of(services.config):
            services = replace(services, config=news.config)
            api.app = create_front(services)
        rooms = replace(rooms, config=news.config)
        admin.app = create_control(rooms)

    reloader.on_change = changed
    return api, admin


async def _reload(reloader: Reloader, notifier: Notifier) -> None:
    """What SIGHUP asks for; a failure is in the log and in `hyperllamactl status`."""
    notifier.reloading()
    async with heartbeat.patience(notifier):
        with contextlib.suppress(HyperLlamaError):
            await reloader.reload()
    notifier.ready()


def _told_of(config: Config) -> tuple[object, ...]:
    """The tables that the front reads for itself: for changes of others it need not be made anew."""
    return config.server, config.models, config.keys


async def _preload(catalog: Catalog, supervisor: Supervisor, name: str) -> None:
    """Load a model at start and keep it; a failure is logged, and the model can still be asked for."""
    try:
        lease = supervisor.lease(catalog.resolve(name), keep_alive=FOREVER)
        try:
            await lease.granted()
        finally:
            lease.release()
    except HyperLlamaError as failure:
        log.error("preload failed: %s", failure, extra=fields(model=name))


async def _sweep_homes(homes: Homes) -> None:
    """Remove what an install that was killed left behind; beside the serving, since it may be gigabytes."""
    try:
        gone = await anyio.to_thread.run_sync(homes.sweep, abandon_on_cancel=True)
    except OSError as failure:
        log.warning("half-installed engines cannot be removed: %s", failure)
        return
    if gone:
        log.warning("removed what an interrupted install left behind", extra=fields(homes=", ".join(gone)))


# -- what is ours alone: directories, the lock, the sockets ------------------------------------------------------------


def _make_directories(paths: Paths) -> None:
    for directory in (paths.state, paths.engines, paths.models, paths.runtime):
        try:
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as failure:
            raise HyperLlamaError(
                f"cannot make the directory {directory}: {failure.strerror}",
                hint="set it in [paths], or its permissions",
            ) from failure


def _fetch_compiled(paths: Paths) -> None:
    """Once, after an upgrade: otherwise each engine would compile everything again, beside what is never used."""
    fetched = compiled.fetch(paths.cache, paths.state)
    if fetched.moved:
        homes = fields(homes=",".join(fetched.moved))
        log.info("what engines have compiled lies in the state directory now", extra=homes)
    if fetched.left:
        where = fields(directory=paths.cache / "engines", homes=",".join(fetched.left))
        log.warning("what engines compiled before is not used any more and can be deleted", extra=where)


@contextlib.contextmanager
def _only_one(runtime: Path) -> Iterator[None]:
    """One daemon for a runtime directory: the kernel drops the lock with the process, however it ends."""
    descriptor = os.open(runtime / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as failure:
        hint = "stop it, or give this one its own `paths.runtime`"
        raise AddressTakenError(f"another hyperllamad runs with {runtime}", hint=hint) from failure
    else:
        yield
    finally:
        os.close(descriptor)
