"""Where a model gets its memory: a pure function of one question, that can be replayed.

Owns the ways to lie on devices and the choice among them; who leaves for it is victims.py's.  Must not know queues,
leases, time or what becomes of a decision.  Bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from hyperllamad.core.models import Need
from hyperllamad.core.question import Answer, Never, Option, Placed, Question, Soon, Victim, Waits
from hyperllamad.core.victims import choose, damage, fits, host_room, most, once_stopped, room_left, sent


def decide(q: Question) -> Answer:
    """Place the newcomer.

    1. Of the ways to lie that suffice as things stand, the preferred one: few devices, or with `spread` many; those
       with the most room.
    2. Else the one whose victims are missed least: none of them busy, quickly brought back, long not used.
    3. Else, if it would fit with a smaller KV cache and nobody at all there, the same again with that.
    4. Else it waits, where those in the way can leave one day; or it never fits.

    A victim that could sleep if the budget of host memory were not full is stopped only where nobody who sleeps there
    is missed less: else the newcomer waits while that one is stopped, and asks again.
    """
    options = list(_options(q, q.need.kv_cache))
    if not any(_could_ever(q, option) for option in options):  # 3
        options = list(_shrunk(q))
        if not options:
            return Never(_numbers(q))
    if found := [option for option in options if fits(q, option, frozenset())]:  # 1
        return Placed(min(found, key=lambda option: _preference(q, option)).placement)
    choices = [(option, victims) for option in options if (victims := choose(q, option)) is not None]
    if not choices:  # 4
        return Waits(_in_the_way(q))
    option, victims = min(choices, key=lambda choice: (damage(q, choice[1]), _preference(q, choice[0])))  # 2
    return host_room(q, option, victims) or Placed(option.placement, tuple(sent(q, victims)))


def foresee(q: Question) -> Answer:
    """What it comes to if nothing else happens: sleepers that are stopped for host memory are victims too."""
    answer = decide(q)
    if not isinstance(answer, Soon):
        return answer
    then = foresee(once_stopped(q, answer.stops))
    if not isinstance(then, Placed):
        return then
    return Placed(then.placement, (*map(Victim, answer.stops), *then.victims))


# -- ways to lie ---------------------------------------------------------------------------------------------------


def _options(q: Question, kv_cache: int) -> Iterator[Option]:
    need = Need(q.need.weights, kv_cache, q.need.overhead)
    if q.lies:
        rooms = tuple(room for share in q.lies for room in q.rooms if room.id == share.device)
        if len(rooms) == len(q.lies):  # else one of its devices is not there any more
            yield Option(rooms, q.lies[0].bytes, q.lies[0].kv_cache)
        return
    if not q.rooms:
        yield Option((), 0, 0)
        return
    degrees = [degree for degree in q.need.gpus if degree <= len(q.rooms)]
    for rank, degree in enumerate(sorted(degrees, reverse=q.spread)):
        for rooms in combinations(q.rooms, degree):
            yield Option(rooms, need.share(degree), -(-kv_cache // degree), (rank,))


def _shrunk(q: Question) -> list[Option]:
    """The ways with as much KV cache as there could ever be room for, where that is enough to start at all."""
    if q.need.kv_least is None or q.lies:
        return []
    found = []
    for option in _options(q, 0):
        room = min((most(q, room) for room in option.rooms), default=0) - option.share
        kv_cache = min(q.need.kv_cache, room * len(option.rooms))
        if kv_cache >= q.need.kv_least:
            per_device = kv_cache // len(option.rooms)
            found.append(Option(option.rooms, option.share + per_device, per_device, option.order))
    return found


def _preference(q: Question, option: Option) -> tuple[float, ...]:
    left = min((room_left(q, room, frozenset()) for room in option.rooms), default=0)
    return (*option.order, -left, *(room.index for room in option.rooms))


def _could_ever(q: Question, option: Option) -> bool:
    return all(most(q, room) >= option.share for room in option.rooms)


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
    can = ", ".join(
        f"{room.name} cannot be used ({room.problem})"
        if room.problem
        else f"{room.name} can free {gib(max(0, most(q, room)))}"
        for room in q.rooms
    )
    pinned = sorted(tenant.key for tenant in q.tenants if tenant.pinned and tenant.holds)
    return f"needs {gib(share)}{each}, {can}" + (f" ({len(pinned)} pinned)" if pinned else "")


def _in_the_way(q: Question) -> str:
    """Why it waits: memory or places, and how many hold them who may not leave now."""
    stay = [tenant for tenant in q.tenants if not tenant.evictable and (tenant.holds or tenant.place)]
    if not q.rooms:
        return f"all {q.places} places are taken, by {len(stay)} that may not leave now"
    left = ", ".join(f"{room.name} has {gib(max(0, room_left(q, room, frozenset())))} left" for room in q.rooms)
    share = q.lies[0].bytes if q.lies else q.need.share(q.need.gpus[0])
    return f"needs {gib(share)}, {left}; {len(stay)} models may not leave now"
