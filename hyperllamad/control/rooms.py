"""What the commands work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hyperllamad.config import Config
from hyperllamad.core.machine import Machine
from hyperllamad.engines.homes import Homes
from hyperllamad.keys import KeyRing
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.library import Library
from hyperllamad.supervision.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Rooms:
    """The rooms below and what is known of the daemon itself; nothing here is the admin door's own."""

    config: Config
    supervisor: Supervisor
    catalog: Catalog
    library: Library
    homes: Homes
    machine: Callable[[], Awaitable[Machine]]  # looks at it anew
    keys: KeyRing
    started_at: float  # Unix time
    url: str  # of the API
