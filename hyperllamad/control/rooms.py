"""What the commands work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from hyperllamad.config.tables import Config
from hyperllamad.core.machine import Machine
from hyperllamad.engines.homes import Homes
from hyperllamad.keys import KeyRing
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.library import Library
from hyperllamad.supervision.supervisor import Supervisor


class Reloader(Protocol):
    """Takes a new configuration while the daemon runs."""

    @property
    def error(self) -> str:
        """Why a newer configuration is not in force; "" = it is."""

    async def reload(self, moved: Callable[[str], None]) -> str:
        """Take it; `moved` is told what is waited for.  What was done; raises HyperLlamaError."""


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
    reloader: Reloader
    started_at: float  # Unix time
    url: str  # of the API
    gpu_problems: Callable[[], tuple[str, ...]] = tuple  # sentences about GPUs that cannot be used
