"""Where things lie: the directory of the configuration, and those for state, cache and run time.

Nothing is made or looked into here, but for the one question whether a user has a configuration of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hyperllamad.config.toml_file import Table

SYSTEM_DIRECTORY = Path("/etc/hyperllama")


class PathsTable(Table, frozen=True, kw_only=True):
    """[paths]: where things lie; empty = the XDG directories, or /var and /run with the packaged configuration."""

    state: str = ""
    cache: str = ""
    runtime: str = ""


class Paths(Table, frozen=True, kw_only=True):
    """Absolute directories in use."""

    config: Path
    state: Path
    cache: Path
    runtime: Path
    credentials: Path | None = None  # where systemd puts secrets for this service

    @property
    def admin_socket(self) -> Path:
        return self.runtime / "admin.sock"

    @property
    def engines(self) -> Path:
        return self.state / "engines"

    @property
    def models(self) -> Path:
        return self.state / "models"


def default_directory(environ: Mapping[str, str]) -> Path:
    """$HYPERLLAMA_CONFIG, else the user's own directory where it exists, else /etc/hyperllama for root."""
    if stated := environ.get("HYPERLLAMA_CONFIG"):
        return Path(stated)
    user = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config") / "hyperllama"
    return user if user.exists() or not SYSTEM_DIRECTORY.exists() else SYSTEM_DIRECTORY


def resolve(table: PathsTable, directory: Path, environ: Mapping[str, str]) -> Paths:
    """What the table states; for the rest the system's directories beside the system's configuration, else XDG's."""
    home = Path(environ.get("HOME", "/"))
    if directory == SYSTEM_DIRECTORY:
        base = (Path("/var/lib/hyperllama"), Path("/var/cache/hyperllama"), Path("/run/hyperllama"))
    else:
        state = Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "hyperllama"
        cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "hyperllama"
        runtime = environ.get("XDG_RUNTIME_DIR")
        base = (state, cache, Path(runtime) / "hyperllama" if runtime else state / "run")
    stated = (table.state, table.cache, table.runtime)
    state, cache, run = (Path(s).expanduser().absolute() if s else b for s, b in zip(stated, base, strict=True))
    return Paths(
        config=directory.absolute(),
        state=state,
        cache=cache,
        runtime=run,
        credentials=Path(given) if (given := environ.get("CREDENTIALS_DIRECTORY")) else None,
    )
