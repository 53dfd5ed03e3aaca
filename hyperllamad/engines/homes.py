"""The engine homes on disk: which there are, which of them is in use, and how one goes away.

A home is a directory `ID/` with a virtual environment and, written last, `home.json`; without that file it is half a
home and does not exist for anybody.  `current.json` beside them records per engine the home in use.  A `llama-server`
on PATH is a home too.  Knows nothing of how homes are filled: that is install.py's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from hyperllamad.config.tables import EngineTable
from hyperllamad.core.errors import InstallFailedError
from hyperllamad.engines import base
from hyperllamad.engines.base import Home

FILE, CURRENT = "home.json", "current.json"
SYSTEM = "system"  # the variant of a program that came with the system


class Homes:
    """Every engine home under `root`.  Cheap to ask on every request: read again only when the directory changed."""

    def __init__(self, root: Path, tables: Mapping[str, EngineTable]) -> None:
        self.root = root
        self._tables = tables
        # The mutable state: what was read, how new that is, and what follows from it.  One thread may change something
        # while another one reads: the mark of the last change is part of how new it is, and one at a time reads.
        self._reading = threading.Lock()
        self._change = object()
        self._read: tuple[Home, ...] = ()
        self._stamp: tuple[int, object] | None = None
        self._enabled: tuple[Home, ...] = ()
        self._in_use: tuple[Home, ...] = ()

    def configure(self, tables: Mapping[str, EngineTable]) -> None:
        """Go by another configuration from now on."""
        with self._reading:
            self._tables = tables
            self._sift()

    def all(self) -> tuple[Home, ...]:
        """Homes of the engines that are enabled, in the order of preference; the one in use first, then the newest."""
        self._refresh()
        return self._enabled

    def installed(self, id_: str) -> Home | None:
        """The home of that id, also of an engine that is not enabled."""
        return _load(self.root / id_)

    def in_use(self) -> tuple[Home, ...]:
        """The current home of each enabled engine that has one."""
        self._refresh()
        return self._in_use

    def kinds(self) -> frozenset[tuple[str, str]]:
        """(engine, device) of the homes in use, for decisions about what could run here."""
        return frozenset((home.engine, home.device) for home in self.in_use())

    def current(self, engine: str) -> Home | None:
        """The home new instances of `engine` run in: as the configuration states, else as recorded, else the newest."""
        return next((home for home in self.in_use() if home.engine == engine), None)

    def use(self, home: Home) -> None:
        """Record `home` as the one in use; instances that run already stay where they are."""
        self._record({**self._recorded(), home.engine: home.id})

    def remove(self, home: Home, *, force: bool = False, vacate: Callable[[], None] = lambda: None) -> None:
        """Delete a home: seconds of work, so call it in a thread.  Raises InstallFailedError.

        Refused for the one in use unless `force`.  `vacate` is called when nobody finds the home any more, so that no
        instance is started there between a look and the end; when it raises, the home is as it was.
        """
        if home.variant == SYSTEM:
            raise InstallFailedError(f"{home.path} came with the system", hint="remove its package instead")
        if not force and home == self.current(home.engine):
            others = [other.id for other in self.all() if other.engine == home.engine and other != home]
            hint = f"{others[0]} would take its place" if others else "no other home of this engine is installed"
            raise InstallFailedError(
                f"{home.id} is in use", hint=f"{hint}; say so explicitly to remove it all the same"
            )
        with self.claim(home.id):
            self._hide(home, vacate)
            if self._recorded().get(home.engine) == home.id:
                self._record({name: id_ for name, id_ in self._recorded().items() if name != home.engine})
            shutil.rmtree(self.root / home.id, ignore_errors=True)
        self._change = object()

    def _hide(self, home: Home, vacate: Callable[[], None]) -> None:
        """Without home.json it is gone for everybody, should we be killed before the rest is."""
        file = self.root / home.id / FILE
        written = file.read_bytes() if file.exists() else b""
        file.unlink(missing_ok=True)
        self._change = object()
        try:
            vacate()
        except BaseException:
            if written:
                write_atomically(file, written)
                self._change = object()
            raise

    def finish(self, home: Home) -> None:
        """Turn a filled directory into a home."""
        write_atomically(self.root / home.id / FILE, msgspec.json.format(msgspec.json.encode(home)))
        self._change = object()

    def sweep(self) -> tuple[str, ...]:
        """Delete what interrupted installs left behind, in a thread; the names of what went."""
        gone = []
        for directory in self._directories():
            if (directory / FILE).exists():
                continue
            try:
                with self.claim(directory.name):
                    shutil.rmtree(directory, ignore_errors=True)
            except InstallFailedError:
                continue  # somebody fills it at this moment
            gone.append(directory.name)
        return tuple(gone)

    @contextmanager
    def claim(self, id_: str) -> Iterator[Path]:
        """Be the only one, in any process, who fills or deletes home `id_`; its directory.

        Raises InstallFailedError when somebody else is.  The lock goes with its process, however that ends.
        """
        path = self.root / f".{id_}.lock"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            opened = path.open("w")
        except OSError as failure:
            hint = "check who owns it and the room on its disk"
            raise InstallFailedError(f"{self.root} cannot be written: {failure.strerror}", hint=hint) from failure
        with opened as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except (BlockingIOError, FileNotFoundError):
                held = False
            if not held:  # or its last holder deleted the file between our open and our lock
                hint = "wait for it; `hyperllamactl engine list` shows when it is there"
                raise InstallFailedError(f"{id_} is being installed or removed already", hint=hint)
            try:
                yield self.root / id_
            finally:
                path.unlink(missing_ok=True)

    # -- reading -------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        if self._stamp != self._now():
            with self._reading:
                stamp = self._now()
                self._read = self._scan()
                self._sift()
                self._stamp = stamp

    def _now(self) -> tuple[int, object]:
        """The directory's age and the last change: what is read after this is at least so new."""
        try:
            return self.root.stat().st_mtime_ns, self._change
        except OSError:
            return 0, self._change

    def _sift(self) -> None:
        """What follows from what was read and what is configured: worked out once, because every request asks."""
        self._enabled = tuple(home for home in self._read if self._table(home.engine).enabled)
        stated = [home for home in self._enabled if self._stated(home)]
        first = (next((home for home in stated if home.engine == name), None) for name in base.NAMES)
        self._in_use = tuple(home for home in first if home is not None)

    def _scan(self) -> tuple[Home, ...]:
        recorded = self._recorded()
        homes = [home for directory in self._directories() if (home := _load(directory))]
        homes += filter(None, [_system_llama_server()])

        def order(home: Home) -> tuple[int, bool, bool, float]:
            in_use = recorded.get(home.engine) == home.id
            return base.NAMES.index(home.engine), not in_use, home.variant != SYSTEM, -home.installed_at

        return tuple(sorted(homes, key=order))

    def _directories(self) -> Iterator[Path]:
        """Those that are, or were to become, homes."""
        prefixes = tuple(f"{name}-" for name in base.NAMES)
        if self.root.is_dir():
            yield from sorted(d for d in self.root.iterdir() if d.is_dir() and d.name.startswith(prefixes))

    def _recorded(self) -> dict[str, str]:
        try:
            return msgspec.json.decode((self.root / CURRENT).read_bytes(), type=dict[str, str])
        except (OSError, msgspec.DecodeError):
            return {}

    def _record(self, current: Mapping[str, str]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.root / CURRENT, msgspec.json.format(msgspec.json.encode(current)))
        self._change = object()

    def _stated(self, home: Home) -> bool:
        """Nothing else is stated."""
        table = self._table(home.engine)
        return table.version in {"", home.version} and table.variant in {"", home.variant}

    def _table(self, engine: str) -> EngineTable:
        return self._tables.get(engine) or EngineTable()


def _load(directory: Path) -> Home | None:
    """The home in `directory`; None when it is half a one, or its Python went away with a system upgrade."""
    try:
        home = msgspec.json.decode((directory / FILE).read_bytes(), type=Home)
    except (OSError, msgspec.DecodeError):
        return None
    python = directory / "bin" / "python"
    if home.engine not in base.NAMES or home.id != directory.name or not os.access(python, os.X_OK):
        return None
    return replace(home, path=str(directory), python=str(python))


def _system_llama_server() -> Home | None:
    if not (program := shutil.which("llama-server")):
        return None
    return Home(id="llama_cpp-system", engine="llama_cpp", version="", variant=SYSTEM, path=program)


def write_atomically(path: Path, content: bytes) -> None:
    """The whole of `content` at `path`, or what was there before; also after a power cut."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
