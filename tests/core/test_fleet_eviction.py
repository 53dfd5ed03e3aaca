"""Rules of the fleet: who leaves when there are as many models as there may be, and who need not."""

from __future__ import annotations

import math

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.instance import Fact
from tests.core.stage import A, B, C, D, Stage


def test_the_least_recently_used_leaves() -> None:
    stage = Stage(max_models=2)
    stage.load(A, B)
    stage.want(1, A)
    stage.release(1)
    assert stage.want(2, C) == ["b stopping", "cut b", "term b", "c waiting"]
    stage.later(3)
    assert stage.report(B, Fact.EXITED) == ["b gone", "c starting", "spawn c"]
    assert stage.report(C, Fact.READY) == ["c ready", "2 gets c"]
    assert stage.state(A) == "ready"


def test_idle_leaves_before_busy() -> None:
    stage = Stage(max_models=2)
    stage.load(A, B)
    stage.want(1, A)
    stage.later(100)
    stage.want(2, B)
    stage.release(2)
    assert stage.want(3, C)[0] == "b stopping"


def test_among_busy_ones_the_one_whose_last_request_came_first_leaves() -> None:
    stage = Stage(max_models=2)
    stage.load(A, B)
    stage.want(1, B)
    stage.later(1)
    stage.want(2, A)
    assert stage.want(3, C)[0] == "b draining"


def test_the_end_of_a_request_is_a_use_too() -> None:
    stage = Stage(max_models=2)
    stage.load(A, B)
    stage.want(1, A)
    stage.later(1)
    stage.want(2, B)
    stage.release(2)
    stage.later(1)
    stage.release(1)
    assert stage.want(3, C)[0] == "b stopping"


def test_nobody_is_sent_away_where_the_time_of_another_is_over() -> None:
    stage = Stage(max_models=2, keep_alive=300)
    stage.load(A, B)
    stage.keep(A, math.inf)
    stage.now += 300
    assert stage.want(1, C) == ["b stopping", "cut b", "term b", "c waiting"]
    assert stage.state(A) == "ready"


def test_a_busy_one_finishes_what_it_has_and_takes_no_more() -> None:
    stage = Stage(max_models=1)
    stage.load(A)
    stage.want(1, A)
    stage.want(2, A)
    assert stage.want(3, B) == ["a draining", "b waiting"]
    assert stage.want(4, A) == []
    assert stage.release(1) == []
    assert stage.release(2) == ["a stopping", "term a"]
    assert stage.report(A, Fact.EXITED) == ["a gone", "b starting", "spawn b"]


def test_who_waited_for_one_that_was_sent_away_gets_a_new_instance() -> None:
    stage = Stage(max_models=1)
    stage.load(A)
    stage.want(1, A)
    stage.want(2, B)
    stage.want(3, A)
    stage.release(1)
    stage.report(A, Fact.EXITED)
    assert stage.report(B, Fact.READY) == ["b ready", "2 gets b", "b draining", "a waiting"]
    stage.release(2)
    assert stage.report(B, Fact.EXITED) == ["b gone", "a starting", "spawn a"]
    assert stage.report(A, Fact.READY) == ["a ready", "3 gets a"]


def test_draining_has_a_deadline() -> None:
    stage = Stage(max_models=1, drain_timeout=60)
    stage.load(A)
    stage.want(1, A)
    stage.want(2, B)
    assert stage.later(60) == ["a stopping", "cut a", "term a"]
    assert stage.release(1) == []


def test_an_arriving_one_is_not_sent_away() -> None:
    stage = Stage(max_models=1)
    stage.want(1, A)
    assert stage.want(2, B) == []
    assert stage.report(A, Fact.READY) == ["a ready", "1 gets a", "a draining", "b waiting"]


def test_one_that_waits_for_its_place_is_not_sent_away() -> None:
    stage = Stage(max_models=1)
    stage.load(A)
    stage.want(1, A)
    stage.want(2, B)
    assert stage.state(B) == "waiting"
    assert stage.want(3, C) == []


def test_one_eviction_is_enough_for_one_newcomer() -> None:
    stage = Stage(max_models=2)
    stage.load(A, B)
    stage.want(1, C)
    assert stage.later(1) == []
    assert stage.want(2, C) == []
    assert stage.state(B) == "ready"


def test_each_newcomer_gets_a_place_of_its_own() -> None:
    stage = Stage(max_models=2)
    stage.load(A, B)
    stage.want(1, C)
    assert stage.want(2, D) == ["b stopping", "cut b", "term b", "d waiting"]
    assert stage.report(B, Fact.EXITED) == ["b gone", "c starting", "spawn c"], "the older request first"
    assert stage.report(A, Fact.EXITED) == ["a gone", "d starting", "spawn d"]


def test_nobody_is_sent_away_where_somebody_leaves_anyway() -> None:
    stage = Stage(max_models=2)
    stage.load(A, B)
    stage.unload(A)
    assert stage.want(1, C) == ["c waiting"]


def test_a_load_that_is_being_killed_makes_room() -> None:
    stage = Stage(max_models=2, load_timeout=100)
    stage.load(B)
    stage.want(1, A)
    stage.later(100)
    assert stage.want(2, C) == ["c waiting"], "a goes to failed, which holds no place"
    assert stage.report(A, Fact.EXITED) == ["a failed", "c starting", "spawn c"]


def test_one_in_back_off_keeps_its_place_but_may_be_sent_away() -> None:
    stage = Stage(max_models=1)
    stage.load(A)
    stage.report(A, Fact.EXITED)
    assert stage.want(1, B) == ["a gone", "b waiting", "b starting", "spawn b"]


def test_a_sick_one_that_would_come_back_may_be_sent_away() -> None:
    stage = Stage(max_models=1)
    stage.load(A)
    stage.report(A, Fact.SICK)
    assert stage.want(1, B) == ["b waiting"]
    assert stage.report(A, Fact.EXITED) == ["a gone", "b starting", "spawn b"]


def test_one_in_back_off_that_an_older_request_waits_for_is_not_sent_away() -> None:
    stage = Stage(max_models=1)
    stage.want(1, A)
    stage.report(A, Fact.EXITED)
    assert stage.want(2, B) == []
    assert stage.later(0.5) == ["a starting", "spawn a"]


def test_one_in_back_off_that_a_younger_request_waits_for_is() -> None:
    stage = Stage(max_models=1)
    stage.want(1, A)
    stage.want(2, B)
    stage.release(1)
    stage.want(3, A)
    assert stage.report(A, Fact.EXITED) == ["a backoff", "a gone", "b waiting", "b starting", "spawn b"]


def test_two_models_that_take_turns_both_serve() -> None:
    stage = Stage(max_models=1)
    stage.load(A)
    served, models = [], [A, B]
    for lease in range(1, 9):
        old, new = models
        stage.want(lease, new)
        stage.report(old, Fact.EXITED)
        served += stage.report(new, Fact.READY)[1:]
        stage.release(lease)
        models = [new, old]
    assert served == [f"{lease} gets {'b' if lease % 2 else 'a'}" for lease in range(1, 9)]


def test_a_promise_that_nobody_waits_for_any_more_is_given_up() -> None:
    stage = Stage(max_models=1)
    stage.load(A)
    stage.want(1, A)
    stage.want(2, B)
    assert stage.release(2) == ["b gone"]
    stage.release(1)
    assert stage.report(A, Fact.EXITED) == ["a gone"]


def test_a_failure_makes_room_for_the_next() -> None:
    stage = Stage(max_models=1)
    stage.want(1, A)
    stage.want(2, B)
    lines = stage.report(A, Fact.BROKEN, LoadFailedError("no"))
    assert lines == ["a failed", "1 refused: load_failed", "b waiting", "b starting", "spawn b"]
