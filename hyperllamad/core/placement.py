"""Where a model gets its memory, and who must leave for it: a pure function of one question, that can be replayed.

Owns the choice of devices and victims; must not know queues, leases, time or what becomes of a decision.  Bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

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
    weights: int = 0  # host memory that level 1 would take, or has taken already
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


class Never(msgspec.Struct, frozen=True, tag=True):
    """It would not fit if everybody left who ever may."""

    why: str


Answer = Placed | Waits | Never


@dataclass(frozen=True, slots=True)
class _Option:
    """One way to lie: so many bytes on each of these devices."""

    rooms: tuple[Room, ...]
    share: int
    kv_cache: int
    order: tuple[int, ...] = field(default=())  # preferred first, all else being equal

    @property
    def placement(self) -> Placement:
        return Placement(tuple(Share(r.id, r.index, r.total, self.share, self.kv_cache) for r in self.rooms))


def decide(q: Question) -> Answer:
    """Place the newcomer.

    1. Of the ways to lie that suffice as things stand, the preferred one: few devices, or with `spread` many; those
       with the most room.
    2. Else the one whose victims are missed least: none of them busy, quickly brought back, long not used.
    3. Else, if it would fit with a smaller KV cache and nobody at all there, the same again with that.
    4. Else it waits, where those in the way can leave one day; or it never fits.
    """
    options = list(_options(q, q.need.kv_cache))
    if not any(_could_ever(q, option) for option in options):  # 3
        options = list(_shrunk(q))
        if not options:
            return Never(_numbers(q))
    if found := [option for option in options if _fits(q, option, frozenset())]:  # 1
        return Placed(min(found, key=lambda option: _preference(q, option)).placement)
    choices = [(option, victims) for option in options if (victims := _victims(q, option)) is not None]
    if not choices:  # 4
        return Waits(_in_the_way(q))
    option, victims = min(choices, key=lambda choice: (_damage(q, choice[1]), _preference(q, choice[0])))  # 2
    return Placed(option.placement, tuple(_sent(q, victims)))


# -- ways to lie ---------------------------------------------------------------------------------------------------


def _options(q: Question, kv_cache: int) -> Iterator[_Option]:
    need = Need(q.need.weights, kv_cache, q.need.overhead)
    if q.lies:
        rooms = tuple(room for share in q.lies for room in q.rooms if room.id == share.device)
        yield _Option(rooms, q.lies[0].bytes, q.lies[0].kv_cache)
        return
    if not q.rooms:
        yield _Option((), 0, 0)
        return
    degrees = [degree for degree in q.need.gpus if degree <= len(q.rooms)]
    for rank, degree in enumerate(sorted(degrees, reverse=q.spread)):
        for rooms in combinations(q.rooms, degree):
            yield _Option(rooms, need.share(degree), -(-kv_cache // degree), (rank,))


def _shrunk(q: Question) -> list[_Option]:
    """The ways with as much KV cache as there could ever be room for, where that is enough to start at all."""
    if q.need.kv_least is None or q.lies:
        return []
    found = []
    for option in _options(q, 0):
        room = min((_most(q, room) for room in option.rooms), default=0) - option.share
        kv_cache = min(q.need.kv_cache, room * len(option.rooms))
        if kv_cache >= q.need.kv_least:
            per_device = kv_cache // len(option.rooms)
            found.append(_Option(option.rooms, option.share + per_device, per_device, option.order))
    return found


def _preference(q: Question, option: _Option) -> tuple[float, ...]:
    left = min((_left(q, room, frozenset()) for room in option.rooms), default=0)
    return (*option.order, -left, *(room.index for room in option.rooms))


# -- room ----------------------------------------------------------------------------------------------------------


def _left(q: Question, room: Room, victims: frozenset[str]) -> int:
    """Bytes of the device that nobody has or was promised, once the victims have left."""
    left = room.capacity
    for tenant in q.tenants:
        held = tenant.holds.get(room.id, 0)
        left -= min(held, _stays(q, tenant)) if tenant.key in victims else held
    return left


def _stays(q: Question, tenant: Tenant) -> int:
    return tenant.asleep if _level(tenant, q.sleep_memory) else 0


def _most(q: Question, room: Room) -> int:
    """What the device could give if everybody left who ever may."""
    return room.capacity - sum(tenant.holds.get(room.id, 0) for tenant in q.tenants if tenant.pinned)


def _fits(q: Question, option: _Option, victims: frozenset[str]) -> bool:
    places = sum(tenant.place for tenant in q.tenants if tenant.key not in victims)
    return places < q.places and all(_left(q, room, victims) >= option.share for room in option.rooms)


def _could_ever(q: Question, option: _Option) -> bool:
    return all(_most(q, room) >= option.share for room in option.rooms)


# -- victims -------------------------------------------------------------------------------------------------------


def _victims(q: Question, option: _Option) -> tuple[Tenant, ...] | None:
    """Who must leave for this way to lie: as few and as little missed as possible; None = not enough of them may."""
    ids = [room.id for room in option.rooms]
    chosen: list[Tenant] = []
    for tenant in sorted((tenant for tenant in q.tenants if tenant.evictable), key=lambda one: _missed(q, one)):
        keys = frozenset(one.key for one in chosen)
        if _fits(q, option, keys):
            break
        full = sum(one.place for one in q.tenants if one.key not in keys) >= q.places
        if (full and tenant.place) or any(tenant.holds.get(device, 0) for device in ids):
            chosen.append(tenant)
    if not _fits(q, option, frozenset(one.key for one in chosen)):
        return None
    for tenant in reversed(list(chosen)):  # the most missed ones first: perhaps it fits without them
        fewer = [one for one in chosen if one is not tenant]
        if _fits(q, option, frozenset(one.key for one in fewer)):
            chosen = fewer
    return tuple(chosen)


def _missed(q: Question, tenant: Tenant) -> tuple[bool, float, float]:
    """Sorts the least missed first: idle, long not used for what it costs to bring back."""
    idle = max(0.0, q.now - tenant.last_used)
    return (tenant.leases > 0, -idle / _cost(q, tenant), tenant.last_used)


def _cost(q: Question, tenant: Tenant) -> float:
    seconds = tenant.wake_seconds if _level(tenant, q.sleep_memory) else tenant.load_seconds
    return max(0.1, seconds)


def _damage(q: Question, victims: Sequence[Tenant]) -> tuple[float, ...]:
    busy = sum(victim.leases > 0 for victim in victims)
    return (busy, sum(_cost(q, victim) for victim in victims), max((victim.last_used for victim in victims), default=0))


def _level(tenant: Tenant, sleep_memory: int) -> int:
    """How deep it would sleep with so much host memory left; STOP = it cannot."""
    return next((level for level in tenant.levels if level != 1 or tenant.weights <= sleep_memory), STOP)


def _sent(q: Question, victims: Iterable[Tenant]) -> Iterator[Victim]:
    """With their levels; each that keeps its weights in host memory leaves less of it to the next."""
    memory = q.sleep_memory
    for victim in victims:
        level = _level(victim, memory)
        memory -= victim.weights if level == 1 else 0
        yield Victim(victim.key, level)


# -- in words ------------------------------------------------------------------------------------------------------


def gib(count: int) -> str:
    """23.1 GiB; below a tenth of one in MiB."""
    return f"{count / (1 << 30):.1f} GiB" if count >= (1 << 30) // 10 else f"{count / (1 << 20):.0f} MiB"


def _numbers(q: Question) -> str:
    """Why never: what it needs, and what each device could free."""
    least = Need(q.need.weights, q.need.kv_cache if q.need.kv_least is None else q.need.kv_least, q.need.overhead)
    degree = max((degree for degree in q.need.gpus if degree <= max(1, len(q.rooms))), default=q.need.gpus[0])
    if degree > len(q.rooms):
        return f"needs {degree} GPUs, and there are {len(q.rooms)}"
    share = q.lies[0].bytes if q.lies else least.share(degree)
    each = f" on each of {degree} GPUs" if degree > 1 else ""
    can = ", ".join(f"{room.name} can free {gib(max(0, _most(q, room)))}" for room in q.rooms)
    pinned = sorted(tenant.key for tenant in q.tenants if tenant.pinned and tenant.holds)
    return f"needs {gib(share)}{each}, {can}" + (f" ({len(pinned)} pinned)" if pinned else "")


def _in_the_way(q: Question) -> str:
    """Why it waits: memory or places, and how many hold them who may not leave now."""
    stay = [tenant for tenant in q.tenants if not tenant.evictable and (tenant.holds or tenant.place)]
    if not q.rooms:
        return f"all {q.places} places are taken, by {len(stay)} that may not leave now"
    left = ", ".join(f"{room.name} has {gib(max(0, _left(q, room, frozenset())))} left" for room in q.rooms)
    share = q.lies[0].bytes if q.lies else q.need.share(q.need.gpus[0])
    return f"needs {gib(share)}, {left}; {len(stay)} models may not leave now"
