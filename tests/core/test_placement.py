"""Where a model lies and who leaves for it, by example."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from hyperllamad.core.models import HOST, Need
from hyperllamad.core.placement import decide, foresee
from hyperllamad.core.question import STOP, Never, Placed, Question, Room, Soon, Tenant, Victim, Waits

GIB = 1 << 30
BIG = Need(weights=16 * GIB, kv_cache=4 * GIB, overhead=2 * GIB)


def rooms(*capacities: int) -> tuple[Room, ...]:
    return tuple(Room(f"gpu{n}", n, 24 * GIB, size * GIB) for n, size in enumerate(capacities))


def ask(need: Need, *capacities: int, tenants: tuple[Tenant, ...] = (), **more: Any) -> Question:
    return Question("new", need, more.pop("places", 9), rooms(*capacities), tenants, **{"now": 100.0, **more})


def tenant(key: str, *held: int, **more: Any) -> Tenant:
    holds = {f"gpu{n}": size * GIB for n, size in enumerate(held) if size}
    return Tenant(key, holds, **{"evictable": True, "load_seconds": 10.0, **more})


def where(answer: object) -> list[int]:
    assert isinstance(answer, Placed), answer
    return [share.index for share in answer.placement.shares]


def victims(answer: object) -> list[tuple[str, int]]:
    assert isinstance(answer, Placed), answer
    return [(victim.key, victim.level) for victim in answer.victims]


def test_one_gpu_if_it_fits_the_emptiest_one() -> None:
    answer = decide(ask(BIG, 22, 24, 23))
    assert where(answer) == [1]
    assert isinstance(answer, Placed)
    assert (answer.placement.bytes, answer.placement.kv_cache) == (22 * GIB, 4 * GIB)


def test_several_gpus_if_it_does_not_fit_into_one() -> None:
    need = Need(weights=30 * GIB, overhead=2 * GIB, gpus=(1, 2, 4))
    answer = decide(ask(need, 20, 24, 24))
    assert where(answer) == [1, 2]
    assert isinstance(answer, Placed)
    assert [share.bytes for share in answer.placement.shares] == [17 * GIB] * 2


def test_spread_takes_as_many_as_it_can() -> None:
    need = Need(weights=4 * GIB, gpus=(1, 2, 4))
    assert where(decide(ask(need, 24, 24, 24, 24, spread=True))) == [0, 1, 2, 3]
    assert where(decide(ask(need, 24, 24, 24, spread=True))) == [0, 1]


def test_what_never_fits_is_said_with_numbers() -> None:
    holds = tenant("old", 8, pinned=True, evictable=False)
    assert decide(ask(BIG, 24, tenants=(holds,))) == Never("needs 22.0 GiB, GPU 0 can free 16.0 GiB (1 pinned)")
    two = Need(weights=60 * GIB, gpus=(1, 2))
    assert decide(ask(two, 24, 24)) == Never(
        "needs 30.0 GiB on each of 2 GPUs, GPU 0 can free 24.0 GiB, GPU 1 can free 24.0 GiB"
    )
    assert decide(ask(Need(1, gpus=(2,)), 24)) == Never("needs 2 GPUs, and there are 1")


def test_who_would_fit_one_day_waits() -> None:
    arriving = tenant("old", 20, evictable=False)
    assert decide(ask(BIG, 24, tenants=(arriving,))) == Waits(
        "needs 22.0 GiB, GPU 0 has 4.0 GiB left; 1 models may not leave now"
    )


def test_a_smaller_kv_cache_if_even_an_empty_gpu_has_no_room_for_the_wanted_one() -> None:
    need = Need(weights=16 * GIB, kv_cache=40 * GIB, overhead=2 * GIB, kv_least=GIB)
    answer = decide(ask(need, 24))
    assert isinstance(answer, Placed)
    assert (answer.placement.bytes, answer.placement.kv_cache) == (24 * GIB, 6 * GIB)
    assert isinstance(decide(ask(need, 18)), Never)


def test_idle_leaves_before_busy_and_nobody_more_than_need_be() -> None:
    busy = tenant("busy", 10, leases=1, last_used=0.0)
    idle = tenant("idle", 6, last_used=90.0)
    other = tenant("other", 4, last_used=10.0)
    assert victims(decide(ask(Need(8 * GIB), 24, tenants=(busy, idle, other)))) == [("other", 0)]
    assert victims(decide(ask(Need(9 * GIB), 24, tenants=(busy, idle, other)))) == [("idle", 0)], "it is enough"
    assert victims(decide(ask(Need(13 * GIB), 24, tenants=(busy, idle, other)))) == [("other", 0), ("idle", 0)]
    assert victims(decide(ask(Need(22 * GIB), 24, tenants=(busy, idle, other))))[-1] == ("busy", 0)


def test_cheap_to_bring_back_leaves_before_dear() -> None:
    cold = tenant("cold", 12, last_used=0.0)
    sleeper = tenant("sleeper", 12, last_used=50.0, levels=(1,), asleep=GIB, weights=8 * GIB, wake_seconds=1.0)
    question = ask(Need(10 * GIB), 24, tenants=(cold, sleeper), sleep_memory=10 * GIB)
    assert victims(decide(question)) == [("sleeper", 1)]
    without_memory = msgspec.structs.replace(question, sleep_memory=0)
    assert victims(decide(without_memory)) == [("cold", 0)], "now it would have to be loaded again"


def test_host_memory_for_sleepers_is_given_once() -> None:
    sleepers = tuple(
        tenant(name, 12, levels=(1, 2), asleep=0, weights=6 * GIB, last_used=float(n)) for n, name in enumerate("ab")
    )
    answer = decide(ask(Need(20 * GIB), 24, tenants=sleepers, sleep_memory=10 * GIB))
    assert victims(answer) == [("a", 1), ("b", 2)]


def test_what_a_sleeper_keeps_is_counted() -> None:
    sleeper = tenant("a", 12, levels=(1,), asleep=3 * GIB, weights=1)
    assert victims(decide(ask(Need(21 * GIB), 24, tenants=(sleeper,), sleep_memory=GIB))) == [("a", 1)]
    asleep = tenant("a", 3, place=False)
    assert victims(decide(ask(Need(22 * GIB), 24, tenants=(asleep,)))) == [("a", 0)]


def test_the_gpu_where_it_hurts_least() -> None:
    left = tenant("left", 20, leases=1)
    right = tenant("right", 0, 20, last_used=99.0)
    answer = decide(ask(BIG, 24, 24, tenants=(left, right)))
    assert (where(answer), victims(answer)) == ([1], [("right", 0)])


def test_places_are_given_too() -> None:
    old, new = tenant("old", 1, last_used=1.0), tenant("new", 1, last_used=2.0)
    assert victims(decide(ask(Need(GIB), 24, tenants=(old, new), places=2))) == [("old", 0)]
    unmeasured = Question("new", Need(GIB), 1, tenants=(tenant("old"),))
    assert decide(unmeasured) == Placed(decide(unmeasured).placement, (Victim("old"),))  # type: ignore[union-attr]
    stuck = Question("new", Need(GIB), 1, tenants=(Tenant("old", {}),))
    assert decide(stuck) == Waits("all 1 places are taken, by 1 that may not leave now")


def test_the_machines_own_memory_is_called_by_its_name() -> None:
    question = Question("new", BIG, 3, (Room(HOST, -1, 16 * GIB, 12 * GIB),))
    assert decide(question) == Never("needs 22.0 GiB, memory can free 12.0 GiB")


def test_one_whose_device_is_not_there_any_more_wakes_nowhere() -> None:
    lies = decide(ask(BIG, 23)).placement.shares  # type: ignore[union-attr]
    asleep = ask(BIG, 24, lies=lies)
    assert isinstance(decide(asleep), Placed)
    assert isinstance(decide(msgspec.structs.replace(asleep, rooms=())), Never)
    elsewhere = tuple(replace(room, id="other") for room in asleep.rooms)
    assert isinstance(decide(msgspec.structs.replace(asleep, rooms=elsewhere)), Never)


def test_one_that_sleeps_wakes_where_it_lies() -> None:
    placed = decide(ask(BIG, 23, 24))
    assert isinstance(placed, Placed)
    asleep = ask(BIG, 23, 24, lies=decide(ask(BIG, 23)).placement.shares)  # type: ignore[union-attr]
    assert where(placed) == [1]
    assert where(decide(asleep)) == [0]


@pytest.mark.parametrize("places", [1, 2, 3])
def test_a_question_survives_the_wire(places: int) -> None:
    question = ask(BIG, 24, 20, tenants=(tenant("a", 20), tenant("b", 0, 9)), places=places)
    again = msgspec.json.decode(msgspec.json.encode(question), type=Question)
    assert again == question
    assert decide(again) == decide(question)


# -- host memory for those who sleep -----------------------------------------------------------------------------------

SMALL = Need(weights=10 * GIB)


def sleeper(key: str, used: float, hosted: int = 8, **more: Any) -> Tenant:
    """One that sleeps and holds a GiB of its GPU."""
    return tenant(key, 1, **{"place": False, "last_used": used, "hosted": hosted * GIB, **more})


def in_the_way(used: float, **more: Any) -> Tenant:
    return tenant("busy", 20, **{"last_used": used, "levels": (1,), "weights": 8 * GIB, "asleep": GIB, **more})


def waits_for(*tenants: Tenant, **more: Any) -> tuple[str, ...] | None:
    """Which sleepers are stopped first; None = it is placed at once."""
    answer = decide(ask(SMALL, 24, tenants=tenants, **more))
    return answer.stops if isinstance(answer, Soon) else None


def test_who_slept_longest_is_stopped_so_that_another_can_sleep() -> None:
    assert waits_for(in_the_way(90.0), sleeper("old", 10.0), sleeper("new", 20.0)) == ("old",)


def test_as_few_as_possible_are_stopped() -> None:
    small, large = sleeper("small", 10.0, 2), sleeper("large", 20.0, 8)
    assert waits_for(in_the_way(90.0), small, large) == ("large",)
    assert waits_for(in_the_way(90.0), small, sleeper("more", 20.0, 6)) == ("small", "more")
    assert waits_for(in_the_way(90.0), small, large, sleep_memory=6 * GIB) == ("small",)


def test_what_comes_back_by_itself_is_waited_for_and_nobody_stopped() -> None:
    assert waits_for(in_the_way(90.0), sleeper("old", 10.0), coming=8 * GIB) == ()


@pytest.mark.parametrize(
    ("victim", "asleep"),
    [
        (in_the_way(50.0), sleeper("s", 60.0)),  # used more lately
        (in_the_way(50.0), sleeper("s", 40.0, load_seconds=60.0)),  # so much dearer to bring back
        (in_the_way(90.0), sleeper("s", 10.0, hosted=7)),  # it is not enough
        (in_the_way(90.0), sleeper("s", 10.0, evictable=False)),  # pinned, or an older request waits for it
        (in_the_way(90.0), sleeper("s", 10.0, hosted=0)),  # somebody waits for it
        (in_the_way(90.0, levels=()), sleeper("s", 10.0)),  # it could not sleep anyway
        (in_the_way(90.0, levels=(1, 2)), sleeper("s", 10.0)),  # it can sleep without host memory
    ],
)
def test_who_sleeps_is_left_alone(victim: Tenant, asleep: Tenant) -> None:
    assert waits_for(victim, asleep) is None


def test_nobody_is_stopped_where_sleep_would_leave_too_little_of_the_gpu() -> None:
    tight = tenant("busy", 23, levels=(1,), weights=8 * GIB, asleep=15 * GIB, last_used=90.0)
    assert waits_for(tight, sleeper("old", 10.0)) is None


def test_what_is_foreseen_has_the_sleepers_among_the_victims() -> None:
    question = ask(SMALL, 24, tenants=(in_the_way(90.0), sleeper("old", 10.0)))
    answer = foresee(question)
    assert victims(answer) == [("old", STOP), ("busy", 1)]
