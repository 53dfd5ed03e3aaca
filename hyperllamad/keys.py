"""API keys: the file they are kept in, and whose key a text is.  Knows no request and no limit's meaning.

Only the SHA-256 of a key is kept: a key is 256 random bits, so nothing slower is needed, and whoever reads the file
can ask for nothing.  The file may also state a key itself (`key = "..."`), for keys that others have made.  It is
looked at again whenever it has changed, so that a key that is taken out is refused from the next request on.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import tomli_w

from hyperllamad.config.tables import Config
from hyperllamad.config.toml_file import decode
from hyperllamad.core.errors import BadRequestError, ConfigError, InUseError, NoSuchKeyError
from hyperllamad.core.quota import Limits
from hyperllamad.telemetry import fields

log = logging.getLogger(__name__)

CREDENTIAL = "hyperllama.keys"  # its name for systemd's LoadCredential= and ImportCredential=
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEAD = "# API keys of hyperllamad.  `sha256` is all that is kept of a key; see `hyperllamactl key --help`.\n\n"


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key in the file: either `sha256` or `key`; no limit stated = the configuration's."""

    name: str
    sha256: str = ""
    key: str = ""
    concurrent: int | None = None
    tokens_per_minute: int | None = None
    weight: float = 1.0  # of its turns when requests wait; 2 = twice as many
    created: int = 0  # Unix seconds


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: tuple[_Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Somebody who may ask."""

    name: str
    digest: bytes
    limits: Limits
    weight: float = 1.0
    created: int = 0  # Unix seconds; 0 = not known
    fixed: bool = False  # from a credential: not ours to change


class KeyRing:
    """Every key there is; one ring for the daemon's life."""

    def __init__(self, config: Config) -> None:
        self.required = config.keys.required
        self.file = config.keys_file
        self._credential = config.paths.credentials / CREDENTIAL if config.paths.credentials else None
        self._general = Limits(config.keys.concurrent, config.keys.tokens_per_minute)
        self._keys: tuple[ApiKey, ...] = ()
        self._seen: tuple[object, ...] | None = None  # the files as they were when `_keys` were read
        self._changing = anyio.Lock()

    def take(self, fresh: KeyRing) -> None:
        """Be as `fresh` is, which a reload has made of a new configuration; a change in the middle comes to its file.

        A second ring in our place would not wait for that change, and one of the two would write over the other.
        """
        self.required, self.file, self._credential = fresh.required, fresh.file, fresh._credential
        self._general, self._keys, self._seen = fresh._general, fresh._keys, fresh._seen

    def load(self) -> None:
        """Read the files; raises ConfigError when one is wrong or can be read by others."""
        self._seen = self._look()
        fixed = [self._key(entry, fixed=True) for entry in _read_credential(self._credential)]
        keys = [*fixed, *(self._key(entry) for entry in _read(self.file))]
        names = [key.name for key in keys]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ConfigError(f"{self.file}: two keys are called {twice}")
        self._keys = tuple(keys)

    def all(self) -> Sequence[ApiKey]:
        """As they are now; after a change that cannot be read, as they were before it."""
        if self._look() != self._seen:
            try:
                self.load()
            except ConfigError as failure:
                log.error("API keys stay as they were: %s", failure)
            else:
                log.info("API keys were read anew", extra=fields(keys=len(self._keys)))
        return self._keys

    def find(self, shown: Sequence[str]) -> ApiKey | None:
        """Whose key is among the texts a client showed.

        Every known key is compared with every text, each in constant time, so that nothing can be learnt from how
        long it takes.
        """
        digests = [hashlib.sha256(text.encode(errors="surrogateescape")).digest() for text in shown]
        found = None
        for key in self.all():
            for digest in digests:
                if hmac.compare_digest(digest, key.digest):
                    found = key
        return found

    async def add(self, name: str, *, concurrent: int | None = None, tokens_per_minute: int | None = None) -> str:
        """Make a key and keep it; the text, which nobody can tell again.  Raises BadRequestError, InUseError."""
        if not _NAME.fullmatch(name):
            hint = "letters, digits, dots, dashes and underscores, 64 at most"
            raise BadRequestError(f'"{name}" cannot be the name of a key', hint=hint)
        if min(concurrent or 0, tokens_per_minute or 0) < 0:
            raise BadRequestError("a limit cannot be negative", hint="0 means none")
        text = "hl-" + secrets.token_urlsafe(32)
        entry = _Entry(
            name=name,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            concurrent=concurrent,
            tokens_per_minute=tokens_per_minute,
            created=int(time.time()),
        )

        def with_it() -> tuple[_Entry, ...]:
            if any(key.name == name for key in self._keys):
                raise InUseError(
                    f"there is a key called {name} already", hint=f"`hyperllamactl key remove {name}` ends it"
                )
            return *_read(self.file), entry

        await self._rewrite(with_it)
        return text

    async def remove(self, name: str) -> None:
        """Refuse a key from now on.  Raises NoSuchKeyError, and InUseError for one from a credential."""

        def without_it() -> tuple[_Entry, ...]:
            key = next((key for key in self._keys if key.name == name), None)
            if key is None:
                raise NoSuchKeyError(f"there is no key called {name}", hint="`hyperllamactl key list` shows all")
            if key.fixed:
                hint = "change the credential and restart the service"
                raise InUseError(f"the key {name} comes from the credential {CREDENTIAL}", hint=hint)
            return tuple(entry for entry in _read(self.file) if entry.name != name)

        await self._rewrite(without_it)

    async def _rewrite(self, change: Callable[[], tuple[_Entry, ...]]) -> None:
        """One change after the other; once more when a reload has named another file meanwhile."""
        async with self._changing:
            written: Path | None = None
            while written != self.file:
                self.load()
                written, entries = self.file, change()
                await anyio.to_thread.run_sync(_write, written, entries)
            self.load()

    def _look(self) -> tuple[object, ...]:
        return _stamp(self.file), self._credential and _stamp(self._credential)

    def _key(self, entry: _Entry, *, fixed: bool = False) -> ApiKey:
        given = (entry.concurrent, entry.tokens_per_minute)
        limits = Limits(*(own if own is not None else other for own, other in zip(given, self._general, strict=True)))
        digest = bytes.fromhex(entry.sha256) if entry.sha256 else hashlib.sha256(entry.key.encode()).digest()
        return ApiKey(entry.name, digest, limits, entry.weight, entry.created, fixed)


# -- the file ----------------------------------------------------------------------------------------------------------


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Changes with the file; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode


def _read(path: Path) -> tuple[_Entry, ...]:
    """The keys in our own file, none when it does not exist; raises ConfigError."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return ()
    except OSError as failure:
        raise ConfigError(f"{path}: cannot be read: {failure.strerror}") from failure
    if mode & 0o077:
        raise ConfigError(
            f"{path}: holds API keys, and others may read or change it (mode {mode:04o})", hint=f"chmod 600 {path}"
        )
    return _entries(path)


def _read_credential(path: Path | None) -> tuple[_Entry, ...]:
    """The same from systemd, which keeps others out by the directory and has modes of its own."""
    return _entries(path) if path is not None and path.exists() else ()


def _entries(path: Path) -> tuple[_Entry, ...]:
    entries = decode(path, _File, secret=True).key
    for entry in entries:
        if not _NAME.fullmatch(entry.name):
            raise ConfigError(f"{path}: {entry.name!r} cannot be the name of a key")
        if bool(entry.sha256) == bool(entry.key):
            raise ConfigError(f"{path}: the key {entry.name} needs either `sha256` or `key`")
        if entry.sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", entry.sha256):
            raise ConfigError(f"{path}: `sha256` of the key {entry.name} must be 64 hexadecimal digits")
        if min(entry.concurrent or 0, entry.tokens_per_minute or 0) < 0:
            raise ConfigError(f"{path}: a limit of the key {entry.name} is negative, but 0 or more was expected")
        if not 0 < entry.weight < math.inf:
            raise ConfigError(
                f"{path}: the weight of the key {entry.name} is {entry.weight}, but more than 0 was expected"
            )
    return entries


def _write(path: Path, entries: Sequence[_Entry]) -> None:
    """Replace the file whole, or not at all; raises ConfigError."""
    text = _HEAD + tomli_w.dumps({"key": msgspec.to_builtins(entries)} if entries else {})
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(fresh).replace(path)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise
    except OSError as failure:
        raise ConfigError(
            f"{path}: cannot be written: {failure.strerror}", hint="state `keys.file` in a directory of the daemon's"
        ) from failure
