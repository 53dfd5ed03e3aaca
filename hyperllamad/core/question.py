"""What is asked when a model needs a place, and what the answer can be.  Plain data that can be kept, and asked again.

Must not know how it is answered (placement.py, victims.py), nor what becomes of a decision.  Bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from hyperllamad.core.models import HOST, Need, Placement, Share

STOP = 0  # the level of a victim that is sent away for good; 1 and 2 are levels of sleep


@dataclass(frozen=True, slots=True)
class Room:
    """One device, as far as it is ours to give: what others hold is taken off already."""

    id: str
    index: int
    total: int
    capacity: int  # what models of ours may hold together
    problem: str = ""  # why nobody may lie there, its capacity is 0 then; "" when they may

    @property
    def name(self) -> str:
        return "memory" if self.id == HOST else f"GPU {self.index}"


@dataclass(frozen=True, slots=True)
class Tenant:
    """An instance that holds memory or a place, or was promised it."""

    key: str
    holds: dict[str, int]  # by device; of one that leaves: what will be left of it
    place: bool = True  # counts against the number of models
    evictable: bool = False  # it has arrived, nobody older waits for it, it is not pinned
    pinned: bool = False
    leases: int = 0
    last_used: float = 0.0
    levels: tuple[int, ...] = ()  # at which it could sleep, best first
    asleep: int = 0  # what would be left on each of its devices
    weights: int = 0  # host memory that level 1 would take in addition
    hosted: int = 0  # of one that sleeps and that nobody waits for: host memory that it gives back if it is stopped
    load_seconds: float = 1.0  # to bring it back from disk
    wake_seconds: float = 1.0  # and from sleep


class Question(msgspec.Struct, frozen=True, tag=True):
    """Everything a placement depends on."""

    newcomer: str
    need: Need
    places: int  # models that may be loaded at once
    rooms: tuple[Room, ...] = ()  # devices it may lie on; () = nobody measures memory, so only places count
    tenants: tuple[Tenant, ...] = ()
    now: float = 0.0
    spread: bool = False  # over as many GPUs as it can
    sleep_memory: int = 0  # host memory left for weights of those who sleep at level 1
    coming: int = 0  # of it that those who are being stopped will soon give back
    lies: tuple[Share, ...] = ()  # of one that sleeps: it can wake nowhere else


@dataclass(frozen=True, slots=True)
class Victim:
    """Who leaves, and how deep: STOP, or a level of sleep."""

    key: str
    level: int = STOP


class Placed(msgspec.Struct, frozen=True, tag=True):
    """It may have this, once the victims have left."""

    placement: Placement
    victims: tuple[Victim, ...] = ()


class Waits(msgspec.Struct, frozen=True, tag=True):
    """There is no room now, but those who hold it can leave later."""

    why: str


class Soon(msgspec.Struct, frozen=True, tag=True):
    """There will be room by itself: host memory comes back, in which one who is in the way can sleep.

    `stops` are sleepers that are stopped for that; when they are gone, the same is asked again.
    """

    why: str
    stops: tuple[str, ...] = ()


class Never(msgspec.Struct, frozen=True, tag=True):
    """It would not fit if everybody left who ever may."""

    why: str


Answer = Placed | Soon | Waits | Never


@dataclass(frozen=True, slots=True)
class Option:
    """One way to lie: so many bytes on each of these devices."""

    rooms: tuple[Room, ...]
    share: int
    kv_cache: int
    order: tuple[int, ...] = field(default=())  # preferred first, all else being equal

    @property
    def placement(self) -> Placement:
        return Placement(tuple(Share(r.id, r.index, r.total, self.share, self.kv_cache) for r in self.rooms))
