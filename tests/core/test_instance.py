"""The machine of one instance, proved: every reachable (instance, child alive?) pair is walked, not sampled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from hyperllamad.core.instance import (
    CRASH,
    DEADLINED,
    FATE,
    HAS_CHILD,
    HOLDS_PLACE,
    TABLE,
    Effect,
    Fact,
    IllegalOrderError,
    Instance,
    Order,
    State,
)

BUDGET, MOST_LEASES = 2, 2

Node = tuple[Instance, bool]  # and whether its child is alive
Step = Order | Fact | str  # "lease" and "release" are what clients do

ENDS = {Fact.EXITED, Fact.BROKEN}


def steps(instance: Instance, alive: bool) -> Iterator[Step]:
    """Everything that the fleet may order, the world may report, or a client may do."""
    yield from (order for order in Order if order in TABLE[instance.state])
    yield from (fact for fact in Fact if alive or fact not in ENDS)
    if instance.state is State.READY and instance.leases < MOST_LEASES:
        yield "lease"
    if instance.leases:
        yield "release"


def take(instance: Instance, alive: bool, step: Step) -> Node:
    """One step, with the world obeying; fails when something is ordered that cannot be done."""
    if isinstance(step, str):
        after, effects = instance.release() if step == "release" else (instance.lease(), ())
    else:
        alive = alive and step not in ENDS
        after, effects = instance.on(step, budget=BUDGET)
    for effect in effects:
        if effect is Effect.SPAWN:
            assert not alive, "two children for one instance"
            alive = True
        elif effect is not Effect.CUT:
            assert alive, f"{effect.name} sent to a dead child"
    return after, alive


def walk() -> tuple[set[Node], set[tuple[State, Step]]]:
    """Every node that can be reached, and every (state, step) that was taken on the way."""
    seen: set[Node] = set()
    cells: set[tuple[State, Step]] = set()
    todo: list[Node] = [(Instance(), False)]
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        for step in steps(*node):
            last = step == "release" and node[0].leases == 1
            cells.add((node[0].state, Fact.IDLE if last else step))
            todo.append(take(*node, step))
    return seen, cells


SEEN, CELLS = walk()


def test_the_walk_is_a_walk() -> None:
    assert len(SEEN) > 30
    assert {instance.state for instance, _ in SEEN} == set(State)


def test_every_cell_of_the_table_is_taken() -> None:
    assert {(state, event) for state, row in TABLE.items() for event in row} - CELLS == set()


def test_the_child_lives_exactly_in_the_states_that_say_so() -> None:
    assert all(alive == (instance.state in HAS_CHILD) for instance, alive in SEEN)
    childless = {State.WAITING, State.BACKOFF, State.FAILED, State.GONE}
    assert set(State) - childless == HAS_CHILD


def test_a_place_is_held_while_there_is_a_child_or_will_be_one_again() -> None:
    assert (HAS_CHILD | {State.BACKOFF}) - {State.ASLEEP} == HOLDS_PLACE


def test_leases_are_open_only_while_ready_or_until_they_have_ended() -> None:
    leased = {instance.state for instance, _ in SEEN if instance.leases}
    assert leased == {State.READY, State.DRAINING, State.SETTLING}


def test_draining_and_settling_always_wait_for_somebody() -> None:
    assert all(instance.leases for instance, _ in SEEN if instance.state in {State.DRAINING, State.SETTLING})


def test_crashes_exceed_the_budget_only_by_the_last_one() -> None:
    assert max(instance.crashes for instance, _ in SEEN) == BUDGET + 1
    assert all(instance.crashes <= BUDGET for instance, _ in SEEN if instance.state in {State.BACKOFF, State.STARTING})


def test_a_fate_is_remembered_only_while_stopping() -> None:
    fates = {(instance.state, instance.fate) for instance, _ in SEEN}
    assert {fate for state, fate in fates if state is State.STOPPING} == {State.GONE, State.FAILED, CRASH}
    assert {fate for state, fate in fates if state is not State.STOPPING} == {State.GONE}


@pytest.mark.parametrize("order", [Order.DRAIN, Order.STOP])
def test_sent_away_it_is_gone_once_its_leases_and_its_child_are(order: Order) -> None:
    for node in SEEN:
        if node[0].state is State.GONE:
            continue
        instance, alive = take(*node, order)
        while instance.leases:
            instance, alive = take(instance, alive, "release")
        if alive:
            instance, alive = take(instance, alive, Fact.EXITED)
        assert instance.state is State.GONE, node


def test_stop_leaves_no_lease_open() -> None:
    assert all(take(*node, Order.STOP)[0].leases == 0 for node in SEEN if node[0].state is not State.GONE)


def test_who_is_leaving_never_holds_a_place_again_unasked() -> None:
    for node in SEEN:
        if node[0].leaving:
            after = [take(*node, step)[0] for step in steps(*node)]
            assert all(a.leaving or a.state in {State.GONE, State.FAILED, State.ASLEEP} for a in after), node


def test_who_may_be_evicted_has_arrived_and_is_not_leaving() -> None:
    for instance, _ in SEEN:
        arriving, over = {State.WAITING, State.STARTING, State.WAKING}, {State.FAILED, State.GONE}
        assert instance.evictable == (instance.state not in arriving | over and not instance.leaving)


def test_a_deadline_leads_out_of_every_state_with_a_child_that_is_not_serving() -> None:
    assert set(State) - {State.WAITING, State.READY, State.ASLEEP, State.FAILED, State.GONE} == DEADLINED
    for node in SEEN:
        if node[0].state in DEADLINED:
            after, effects = node[0].on(Fact.LATE, budget=BUDGET)
            assert after.state is not node[0].state or effects == (Effect.KILL,)


def test_each_state_that_waits_handles_what_it_waits_for() -> None:
    awaited = {
        State.STARTING: Fact.READY,
        State.DRAINING: Fact.IDLE,
        State.SETTLING: Fact.IDLE,
        State.SLEEPING: Fact.SLEPT,
        State.WAKING: Fact.READY,
        State.STOPPING: Fact.EXITED,
        State.BACKOFF: Fact.LATE,
    }
    assert awaited.keys() == DEADLINED
    assert all(fact in TABLE[state] for state, fact in awaited.items())


def test_an_order_out_of_place_is_our_bug() -> None:
    refused = [(node[0], order) for node in SEEN for order in set(Order) - set(TABLE[node[0].state])]
    assert refused
    for instance, order in refused:
        with pytest.raises(IllegalOrderError, match=f"{order.name} to an instance that is {instance.state}"):
            instance.on(order, budget=BUDGET)


def test_a_lease_of_an_instance_that_is_not_ready_is_our_bug() -> None:
    for instance, _ in SEEN:
        if instance.state is not State.READY:
            with pytest.raises(IllegalOrderError):
                instance.lease()


def test_every_fact_is_taken_in_every_state_and_late_news_change_nothing() -> None:
    for (instance, _), fact in product(SEEN, Fact):
        after, effects = instance.on(fact, budget=BUDGET)
        if fact not in TABLE[instance.state]:
            assert (after, effects) == (instance, ())


def test_idle_is_not_believed_while_there_are_leases() -> None:
    draining = Instance(State.DRAINING, leases=1)
    assert draining.on(Fact.IDLE, budget=BUDGET) == (draining, ())
    assert draining.release() == (Instance(State.STOPPING), (Effect.TERM,))


def test_draining_an_idle_instance_stops_it() -> None:
    assert Instance(State.READY).on(Order.DRAIN, budget=0)[0] == Instance(State.STOPPING)
    assert Instance(State.READY, leases=1).on(Order.DRAIN, budget=0)[0] == Instance(State.DRAINING, leases=1)


@pytest.mark.parametrize(
    ("crashes", "budget", "then"),
    [(0, 0, State.FAILED), (0, 1, State.BACKOFF), (1, 1, State.FAILED), (1, 2, State.BACKOFF)],
)
@pytest.mark.parametrize("state", [State.STARTING, State.READY])
def test_the_budget_is_the_number_of_crashes_followed_by_a_restart(
    state: State, crashes: int, budget: int, then: State
) -> None:
    after, _ = Instance(state, crashes=crashes).on(Fact.EXITED, budget=budget)
    assert after == Instance(then, crashes=crashes + 1)


@pytest.mark.parametrize("state", [State.STARTING, State.READY])
def test_what_would_fail_the_same_way_is_not_tried_again(state: State) -> None:
    assert Instance(state).on(Fact.BROKEN, budget=9)[0].state is State.FAILED


@pytest.mark.parametrize("end", [Fact.EXITED, Fact.BROKEN])
def test_how_a_child_ended_that_we_ended_says_nothing(end: Fact) -> None:
    """A sick child is killed; its exit looks broken perhaps, but the crash counts as any other."""
    sick, effects = Instance(State.READY, leases=2).on(Fact.SICK, budget=1)
    assert effects == (Effect.CUT, Effect.KILL)
    assert sick == Instance(State.STOPPING, fate=CRASH)
    assert sick.on(end, budget=1)[0] == Instance(State.BACKOFF, crashes=1)


def test_sleeping_gives_up_nothing_but_memory() -> None:
    awake = Instance(State.READY, crashes=1)
    sleeping, effects = awake.on(Order.SLEEP, budget=1)
    assert (sleeping, effects) == (Instance(State.SLEEPING, crashes=1), (Effect.SLEEP,))
    asleep, effects = sleeping.on(Fact.SLEPT, budget=1)
    assert (asleep, effects) == (Instance(State.ASLEEP, crashes=1), ())
    waking, effects = asleep.on(Order.WAKE, budget=1)
    assert (waking, effects) == (Instance(State.WAKING, crashes=1), (Effect.WAKE,))
    assert waking.on(Fact.READY, budget=1) == (awake, ())


def test_a_busy_one_sleeps_after_its_last_request() -> None:
    settling, effects = Instance(State.READY, leases=1).on(Order.SLEEP, budget=1)
    assert (settling, effects) == (Instance(State.SETTLING, leases=1), ())
    assert settling.release() == (Instance(State.SLEEPING), (Effect.SLEEP,))


@pytest.mark.parametrize("fact", [Fact.SICK, Fact.LATE])
def test_one_that_does_not_wake_as_it_was_is_started_afresh(fact: Fact) -> None:
    killed, effects = Instance(State.WAKING).on(fact, budget=1)
    assert effects == (Effect.KILL,)
    assert killed.on(Fact.EXITED, budget=1)[0] == Instance(State.BACKOFF, crashes=1)


@pytest.mark.parametrize("fact", [Fact.SICK, Fact.LATE])
def test_one_that_does_not_fall_asleep_makes_room_all_the_same(fact: Fact) -> None:
    killed, effects = Instance(State.SLEEPING).on(fact, budget=1)
    assert effects == (Effect.KILL,)
    assert killed.on(Fact.EXITED, budget=1)[0].state is State.GONE


def test_too_slow_is_killed_and_not_tried_again() -> None:
    late, effects = Instance(State.STARTING).on(Fact.LATE, budget=9)
    assert effects == (Effect.KILL,)
    assert late.on(Fact.READY, budget=9) == (late, ()), "it got ready while it was being killed"
    assert late.on(Fact.LATE, budget=9) == (late, (Effect.KILL,))
    assert late.on(Fact.EXITED, budget=9)[0].state is State.FAILED


def test_retry_forgets_the_crashes() -> None:
    assert Instance(State.FAILED, crashes=3).on(Order.RETRY, budget=2) == (Instance(State.WAITING), ())
    assert Instance(State.BACKOFF, crashes=2).on(Order.RETRY, budget=2) == (Instance(State.STARTING), (Effect.SPAWN,))


def test_no_cell_leads_to_a_fate_that_was_never_decided() -> None:
    assert [state for state, row in TABLE.items() if any(move.to is FATE for move in row.values())] == [State.STOPPING]


@pytest.mark.parametrize(
    ("instance", "text"),
    [
        (Instance(), "waiting"),
        (Instance(State.READY, leases=1), "ready (1 lease)"),
        (Instance(State.DRAINING, leases=2, crashes=1), "draining (2 leases, 1 crash)"),
        (Instance(State.FAILED, crashes=3), "failed (3 crashes)"),
    ],
)
def test_how_an_instance_is_written_in_a_log(instance: Instance, text: str) -> None:
    assert str(instance) == text
