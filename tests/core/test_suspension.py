"""Who sleeps, who goes and who stays when the machine sleeps, for every state an instance can be in."""

from __future__ import annotations

import pytest

from hyperllamad.core import suspension
from hyperllamad.core.actions import View
from hyperllamad.core.instance import State
from hyperllamad.core.models import Key
from hyperllamad.core.suspension import Rest
from tests.core.stage import A, B, C


def view(key: Key, state: State, keep_alive: float = 300.0) -> View:
    return View(key, state, 0, 0, 0, 0.0, None, None, keep_alive)


def told(state: State, *, on_gpu: bool = True, can_sleep: bool = True, kept: bool = False) -> Rest:
    gpu, sleepers = {A} if on_gpu else set(), {A} if can_sleep else set()
    return suspension.before([view(A, state)], gpu, can_sleep=sleepers, kept=kept)[A]


@pytest.mark.parametrize("state", [state for state in State if state is not State.GONE])
def test_what_lies_in_the_machines_memory_stays(state: State) -> None:
    assert told(state, on_gpu=False) is Rest.STAY
    assert told(state, kept=True) is Rest.STAY, "so does what the driver saves"


@pytest.mark.parametrize(
    ("state", "rest"),
    [
        (State.WAITING, Rest.STAY),
        (State.STARTING, Rest.UNLOAD),
        (State.READY, Rest.SLEEP),
        (State.DRAINING, Rest.STAY),
        (State.SETTLING, Rest.STAY),
        (State.SLEEPING, Rest.STAY),
        (State.ASLEEP, Rest.STAY),
        (State.WAKING, Rest.UNLOAD),
        (State.STOPPING, Rest.STAY),
        (State.BACKOFF, Rest.UNLOAD),
        (State.FAILED, Rest.STAY),
    ],
)
def test_on_a_gpu(state: State, rest: Rest) -> None:
    assert told(state) is rest
    assert told(state, can_sleep=False) is (Rest.UNLOAD if rest is Rest.SLEEP else rest)


def test_rested_is_who_sleeps_is_gone_or_was_told_nothing() -> None:
    orders = {A: Rest.SLEEP, B: Rest.UNLOAD, C: Rest.STAY}
    views = [view(A, State.SETTLING), view(B, State.DRAINING), view(C, State.READY)]
    assert suspension.restless(views, orders) == [A, B]
    assert suspension.restless([view(A, State.ASLEEP), view(B, State.STOPPING)], orders) == [B]
    assert suspension.rested([view(A, State.ASLEEP), view(C, State.READY)], orders)


def test_who_was_wanted_is_brought_back_for_as_long_as_it_was_to_stay() -> None:
    views = [view(A, State.READY, 60.0), view(B, State.ASLEEP), view(C, State.STARTING)]
    assert suspension.back(views) == {A: 60.0, C: 300.0}


@pytest.mark.parametrize("within", [0.0, 0.5, 5.0, 30.0])
def test_less_time_is_used_than_there_is(within: float) -> None:
    share = suspension.shares(within)
    assert 0 <= share.give_way < share.finish or not within
    assert share.finish + share.give_way <= 0.91 * within
