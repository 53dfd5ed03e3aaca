"""Rules of the fleet: engines that one life of the daemon leaves and the next one goes on with."""

from __future__ import annotations

from hyperllamad.core.instance import Fact
from tests.core.stage import A, B, C, Stage


def test_an_adopted_engine_has_its_place_and_starts_without_being_asked_for() -> None:
    stage = Stage(max_models=1)
    assert stage.adopt(A, keep_alive=60) == ["a waiting", "a starting", "spawn a"]
    assert stage.report(A, Fact.READY) == ["a ready"]
    assert stage.expires_in(A) == 60
    assert stage.want(1, A) == ["1 gets a"]
    stage.release(1)
    assert stage.later(60) == ["a stopping", "cut a", "term a"]


def test_requests_that_come_before_it_answers_wait_for_it() -> None:
    stage = Stage()
    stage.adopt(A)
    assert stage.want(1, A) == []
    assert stage.report(A, Fact.READY) == ["a ready", "1 gets a"]


def test_it_counts_against_the_places_from_the_first_moment() -> None:
    stage = Stage(max_models=2)
    stage.adopt(A)
    stage.adopt(B)
    assert stage.want(1, C) == [], "both are still arriving, so neither may be sent away"
    stage.report(A, Fact.READY)
    assert stage.state(A) == "stopping"


def test_one_that_turns_out_dead_is_started_afresh() -> None:
    stage = Stage()
    stage.adopt(A)
    stage.want(1, A)
    assert stage.report(A, Fact.EXITED) == ["a backoff"]
    assert stage.later(1) == ["a starting", "spawn a"]


def test_a_close_that_leaves_engines_drains_nobody_and_serves_nobody_new() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    stage.want(2, B)
    assert stage.close(drain=False) == ["2 refused: closing"]
    assert stage.want(3, A) == ["3 refused: closing"]
    assert stage.state(A) == "ready"
    assert stage.release(1) == []
    assert stage.leave(A) == ["a stopping", "cut a", "term a", "a gone"]
    assert stage.leave(A) == []


def test_what_is_left_is_told_as_that() -> None:
    stage = Stage()
    stage.adopt(A)
    stage.report(A, Fact.READY)
    stage.close(drain=False)
    stage.leave(A)
    assert [record.what for record in stage.fleet.records()] == ["adopted", "left"]
