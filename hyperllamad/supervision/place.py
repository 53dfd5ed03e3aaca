"""Where one child lives: runtime/e/<id>/ with `e.sock`, `tmp/`, `cwd/` and `leader`, for our user only.

Where control groups are delegated to us it has one of those too, named after the directory.  `leader` says which
processes belong to it, so that a later life of the daemon can find them; it must not know how they are ended
(orphans.py does).
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.models import UNLIMITED, Limits, Placement
from hyperllamad.engines.base import Host, Place
from hyperllamad.engines.environment import LONGEST_SOCKET
from hyperllamad.supervision import cgroups, procfs
from hyperllamad.supervision.cgroups import Delegation
from hyperllamad.supervision.procfs import Identity

MARK = "HYPERLLAMA_PLACE"  # environment variable of everybody who lives here; its value is the directory


class Stand(msgspec.Struct, frozen=True):
    """What the engine in a place serves: all that the next life must know to go on with it."""

    name: str  # of the model that was asked for first
    names: tuple[str, ...]  # ModelName.key of every name it was asked for by
    digest: str  # these two are its Key
    settings: str
    keep_alive: float | None  # seconds; None = for ever
    placement: Placement | None = None


class Leader(msgspec.Struct, frozen=True):
    """Who lives in a place, and what for."""

    boot: str  # of the machine
    daemon: Identity
    engine: Identity | None = None  # the session's leader, once it runs
    guard: Identity | None = None
    stand: Stand | None = None  # None = nobody may go on with it


def root(runtime: Path) -> Path:
    """Where all places are."""
    return runtime / "e"


def make(
    runtime: Path, cache: Path, host: Host, *, delegation: Delegation | None = None, limits: Limits = UNLIMITED
) -> Place:
    """A new place, and the `cache` directory of its engine home; raises LoadFailedError when it cannot be made.

    With a `delegation` it has a control group, and `limits` hold there as far as the kernel's controllers go.
    """
    directory = root(runtime) / secrets.token_hex(4)
    socket = str(directory / "e.sock")
    if (excess := len(socket.encode()) - LONGEST_SOCKET) > 0:
        raise LoadFailedError(
            f"the runtime directory {runtime} has too long a path for a Unix socket in it, by {excess} bytes",
            hint="set `paths.runtime` in hyperllamad.toml to a shorter one",
        )
    try:
        for one in (cache, directory, directory / "tmp", directory / "cwd"):
            one.mkdir(mode=0o700, parents=True, exist_ok=one is cache)
        _write(directory, Leader(procfs.boot_id(), procfs.myself()))
        group = str(delegation.make(directory.name, limits)) if delegation is not None else ""
    except OSError as failure:
        shutil.rmtree(directory, ignore_errors=True)
        raise LoadFailedError(
            f"{failure.filename} cannot be made: {failure.strerror}", hint="check its owner and the space left there"
        ) from failure
    return of(directory, cache, host, group)


def of(directory: Path, cache: Path, host: Host, group: str) -> Place:
    """The place that a directory is."""
    return Place(str(directory / "e.sock"), str(directory / "tmp"), str(directory / "cwd"), str(cache), host, group)


def directory(place: Place) -> Path:
    return _directory(place.socket)


@functools.lru_cache(maxsize=16)  # of those that are used now; it is full, and flat, soon
def _directory(socket: str) -> Path:
    """Made once for each place: with every new path its parts enter Python's table of names (see procfs.py)."""
    return Path(socket).parent


def output(place: Place) -> Path:
    """The pipe its engine prints into, where that has a name."""
    return directory(place) / "out"


def door(place: Place) -> Path:
    """The socket on which its guard waits for the next life."""
    return directory(place) / "door"


def vacate(place: Place) -> None:
    """Clear the way for another engine in the place of one that is gone: what they are found by has fixed names."""
    for name in (output(place), door(place)):
        name.unlink(missing_ok=True)


def record(place: Place, engine: Identity, guard: Identity | None) -> None:
    """Write down the session's leader, and that it is ours."""
    before = read(directory(place))
    stand = before.stand if before is not None else None
    _write(directory(place), Leader(procfs.boot_id(), procfs.myself(), engine, guard, stand))


def note(place: Place, stand: Stand | None) -> None:
    """Write down what the engine serves, or (None) that nobody may go on with it."""
    before = read(directory(place))
    if before is not None and before.stand != stand:
        _write(directory(place), msgspec.structs.replace(before, stand=stand))


def keep_lines(place: Place, lines: Iterable[tuple[float, str]]) -> None:
    """Leave what the engine printed for the next life: Unix seconds and text of each line."""
    (directory(place) / "log").write_bytes(msgspec.json.encode(list(lines)))


def kept_lines(place: Place) -> list[tuple[float, str]]:
    """What was left, for once; empty when there is nothing that can be read."""
    file = directory(place) / "log"
    try:
        lines = msgspec.json.decode(file.read_bytes(), type=list[tuple[float, str]])
        file.unlink()
    except (OSError, msgspec.DecodeError):
        return []
    return lines


def read(where: Path) -> Leader | None:
    """The leader file in a place's directory; None when there is none that can be read."""
    try:
        return msgspec.json.decode((where / "leader").read_bytes(), type=Leader)
    except (OSError, msgspec.DecodeError):
        return None


def remove(where: Path, group: str = "") -> None:
    """Remove a place's directory with everything in it, and its control group; raises OSError."""
    if group:
        cgroups.remove(Path(group))
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(where)


def _write(where: Path, leader: Leader) -> None:
    new = where / "leader.new"
    new.write_bytes(msgspec.json.encode(leader))
    new.replace(where / "leader")
