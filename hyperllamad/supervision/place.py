"""Where one child lives: runtime/e/<id>/ with `e.sock`, `tmp/`, `cwd/` and `leader`, for our user only.

Where control groups are delegated to us it has one of those too, named after the directory.  `leader` says which
processes belong to it, so that a later life of the daemon can find them; it must not know how they are ended
(orphans.py does).
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path

import msgspec

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.models import UNLIMITED, Limits
from hyperllamad.engines.base import Host, Place
from hyperllamad.supervision import cgroups, procfs
from hyperllamad.supervision.cgroups import Delegation
from hyperllamad.supervision.procfs import Identity

MARK = "HYPERLLAMA_PLACE"  # environment variable of everybody who lives here; its value is the directory
LONGEST_SOCKET = 107  # bytes of sun_path in unix(7), less the final zero


class Leader(msgspec.Struct, frozen=True):
    """Who lives in a place."""

    boot: str  # of the machine
    daemon: Identity
    engine: Identity | None = None  # the session's leader, once it runs


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
    return Place(socket, str(directory / "tmp"), str(directory / "cwd"), str(cache), host, group)


def directory(place: Place) -> Path:
    return Path(place.socket).parent


def record(place: Place, engine: Identity) -> None:
    """Write down the session's leader."""
    _write(directory(place), Leader(procfs.boot_id(), procfs.myself(), engine))


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
