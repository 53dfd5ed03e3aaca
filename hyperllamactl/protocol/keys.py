"""API keys on the wire.  A key itself is told once, in KeyMade, and in no other line."""

from __future__ import annotations

import msgspec

from hyperllamactl.protocol.base import Command, Reply, Role


class KeyRow(msgspec.Struct, kw_only=True):
    """One API key; the key itself is not kept."""

    name: str
    concurrent: int = 0  # requests at once; 0 = no limit
    tokens_per_minute: int = 0  # read and written; 0 = no limit
    created_at: float = 0.0  # Unix seconds; 0 = not known
    fixed: bool = False  # from a systemd credential: cannot be removed here


class Keys(Reply, tag="keys"):
    """Every API key."""

    keys: list[KeyRow]
    required: bool  # clients are asked for one
    file: str  # where they are kept


class KeyMade(Reply, tag="key_made"):
    """A new API key: the only time that it is told."""

    name: str
    key: str
    required: bool  # clients are asked for one


class KeyNew(Command):
    """Make an API key and print it, once."""

    role = Role.ADMIN
    reply = KeyMade
    streams = True

    name: str  # who it is for: letters, digits, dots, dashes, underscores
    concurrent: int | None = None  # requests at once; 0 = no limit, null = as configured
    tokens_per_minute: int | None = None  # read and written; 0 = no limit, null = as configured


class KeyList(Command):
    """List the API keys: names and limits."""

    reply = Keys


class KeyRemove(Command):
    """Refuse an API key from now on."""

    role = Role.ADMIN
    streams = True

    name: str
