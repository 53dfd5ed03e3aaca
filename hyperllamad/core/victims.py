"""Who leaves for a newcomer, and how deep: the least missed, asleep rather than stopped while host memory lasts.

Pure functions of one question (question.py); must not know why one way to lie is preferred.  Bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from hyperllamad.core.question import STOP, Option, Question, Room, Soon, Tenant, Victim

# -- room ----------------------------------------------------------------------------------------------------------


def room_left(q: Question, room: Room, victims: frozenset[str]) -> int:
    """Bytes of the device that nobody has or was promised, once the victims have left."""
    left = room.capacity
    for tenant in q.tenants:
        held = tenant.holds.get(room.id, 0)
        left -= min(held, _stays(q, tenant)) if tenant.key in victims else held
    return left


def _stays(q: Question, tenant: Tenant) -> int:
    return tenant.asleep if _level(tenant, q.sleep_memory) else 0


def fits(q: Question, option: Option, victims: frozenset[str]) -> bool:
    """Whether the newcomer could lie so, once the victims have left."""
    places = sum(tenant.place for tenant in q.tenants if tenant.key not in victims)
    return places < q.places and all(room_left(q, room, victims) >= option.share for room in option.rooms)


def most(q: Question, room: Room) -> int:
    """What the device could give if everybody left who ever may."""
    return room.capacity - sum(tenant.holds.get(room.id, 0) for tenant in q.tenants if tenant.pinned)


# -- victims -------------------------------------------------------------------------------------------------------


def choose(q: Question, option: Option) -> tuple[Tenant, ...] | None:
    """Who must leave for this way to lie: as few and as little missed as possible; None = not enough of them may."""
    ids = [room.id for room in option.rooms]
    chosen: list[Tenant] = []
    for tenant in sorted((tenant for tenant in q.tenants if tenant.evictable), key=lambda one: _missed(q, one)):
        keys = frozenset(one.key for one in chosen)
        if fits(q, option, keys):
            break
        full = sum(one.place for one in q.tenants if one.key not in keys) >= q.places
        if (full and tenant.place) or any(tenant.holds.get(device, 0) for device in ids):
            chosen.append(tenant)
    if not fits(q, option, frozenset(one.key for one in chosen)):
        return None
    for tenant in reversed(list(chosen)):  # the most missed ones first: perhaps it fits without them
        fewer = [one for one in chosen if one is not tenant]
        if fits(q, option, frozenset(one.key for one in fewer)):
            chosen = fewer
    return tuple(chosen)


def _missed(q: Question, tenant: Tenant) -> tuple[bool, float, float]:
    """Sorts the least missed first: idle, long not used for what it costs to bring back."""
    idle = max(0.0, q.now - tenant.last_used)
    return (tenant.leases > 0, -idle / _cost(q, tenant), tenant.last_used)


def _cost(q: Question, tenant: Tenant) -> float:
    seconds = tenant.wake_seconds if _level(tenant, q.sleep_memory) else tenant.load_seconds
    return max(0.1, seconds)


def damage(q: Question, victims: Sequence[Tenant]) -> tuple[float, ...]:
    """Sorts the choices whose victims are missed least first."""
    busy = sum(victim.leases > 0 for victim in victims)
    return (busy, sum(_cost(q, victim) for victim in victims), max((victim.last_used for victim in victims), default=0))


def _level(tenant: Tenant, sleep_memory: int) -> int:
    """How deep it would sleep with so much host memory left; STOP = it cannot."""
    return next((level for level in tenant.levels if level != 1 or tenant.weights <= sleep_memory), STOP)


def sent(q: Question, victims: Iterable[Tenant]) -> Iterator[Victim]:
    """With their levels; each that keeps its weights in host memory leaves less of it to the next."""
    memory = q.sleep_memory
    for victim in victims:
        level = _level(victim, memory)
        memory -= victim.weights if level == 1 else 0
        yield Victim(victim.key, level)


# -- host memory for those who sleep -------------------------------------------------------------------------------


def host_room(q: Question, option: Option, victims: Sequence[Tenant]) -> Soon | None:
    """What must be waited for so that one more of the victims can sleep; None = they leave as they can now.

    An engine that keeps its weights in host memory cannot drop them there: vLLM would have to wake for that, into the
    very memory that is wanted.  So a sleeper that is missed less than the victim is stopped, and the newcomer waits
    until it is gone: no longer than it would have waited for the end of the victim itself.
    """
    memory = q.sleep_memory
    for victim in victims:
        level = _level(victim, memory)
        memory -= victim.weights if level == 1 else 0
        if level != STOP or 1 not in victim.levels:
            continue
        stops = _sleepers_for(q, victim, victim.weights - memory - q.coming)
        if stops is None:
            continue
        keys = tuple(one.key for one in stops)
        if fits(once_stopped(q, keys), option, frozenset(one.key for one in victims)):
            return Soon(f"host memory comes back for {victim.key} to sleep in", keys)
    return None


def _sleepers_for(q: Question, victim: Tenant, short: int) -> list[Tenant] | None:
    """As few sleepers as possible that hold so much host memory and are missed less than the victim; None = too few."""
    asleep = sorted((one for one in q.tenants if one.evictable and one.hosted), key=lambda one: -_loss(q, one))
    stops: list[Tenant] = []
    for one in asleep:
        if sum(stop.hosted for stop in stops) >= short or _loss(q, one) <= _loss(q, victim):
            break
        stops.append(one)
    if sum(stop.hosted for stop in stops) < short:
        return None
    for one in reversed(list(stops)):  # the most missed ones first: perhaps it is enough without them
        fewer = [stop for stop in stops if stop is not one]
        if sum(stop.hosted for stop in fewer) >= short:
            stops = fewer
    return stops


def _loss(q: Question, tenant: Tenant) -> float:
    """Grows with how little it matters that the tenant is stopped and not asleep: idle time for what that costs."""
    idle = 0.0 if tenant.leases else max(0.0, q.now - tenant.last_used)
    return idle / max(0.1, tenant.load_seconds - tenant.wake_seconds)


def once_stopped(q: Question, stops: Collection[str]) -> Question:
    """The question as it will be when these sleepers are gone, and those who are on their way out already."""
    gives = q.coming + sum(one.hosted for one in q.tenants if one.key in stops)
    stay = tuple(one for one in q.tenants if one.key not in stops)
    return msgspec.structs.replace(q, tenants=stay, sleep_memory=q.sleep_memory + gives, coming=0)
