"""Rules of the fleet: how long is waited for what, and what becomes of who is late."""

from __future__ import annotations

import math

import pytest

from hyperllamad.core.errors import LoadFailedError, LoadTimeoutError
from hyperllamad.core.instance import Fact
from tests.core.stage import A, B, Stage


def test_an_engine_that_is_not_ready_in_time_is_killed_and_fails() -> None:
    stage = Stage(load_timeout=100, restart_budget=9)
    stage.want(1, A)
    stage.later(50)
    stage.want(2, A)
    assert stage.later(50) == ["1 refused: load_timeout", "a stopping", "kill a"]
    assert stage.report(A, Fact.EXITED, LoadFailedError("killed by signal 9")) == [
        "a failed",
        "2 refused: load_timeout",
    ]
    for error in stage.errors.values():
        assert isinstance(error, LoadTimeoutError)
        assert error.message == "the model was not ready within 1m40s: its engine is still starting"
        assert "load_timeout" in error.hint
    assert stage.want(3, A) == ["3 refused: load_timeout"]


def test_who_waits_for_a_slow_engine_that_will_not_die_is_told_that_it_was_slow() -> None:
    stage = Stage(load_timeout=100)
    stage.want(1, A)
    stage.later(5)
    stage.want(2, A)
    assert stage.later(100)[-1] == "2 refused: load_timeout"
    assert "still starting" in stage.errors[2].message


def test_an_engine_that_got_ready_while_it_was_killed_serves_nobody() -> None:
    stage = Stage(load_timeout=100)
    stage.want(1, A)
    stage.later(100)
    assert stage.report(A, Fact.READY) == []
    assert stage.want(2, A) == []


def test_each_request_has_a_deadline_of_its_own() -> None:
    """A child stuck in a driver can outlive SIGKILL: who waits for its end must not wait for ever."""
    stage = Stage(load_timeout=100, stop_timeout=30)
    stage.load(A)
    stage.unload(A)
    stage.want(1, A)
    lines = stage.later(100)
    assert lines == ["kill a", "kill a", "kill a", "1 refused: load_timeout"]
    assert "has not ended" in stage.errors[1].message
    assert stage.report(A, Fact.EXITED) == ["a gone"]


def test_a_shorter_load_timeout_holds_for_who_waits_already() -> None:
    stage = Stage(load_timeout=1000)
    stage.want(1, A)
    stage.later(5)
    assert stage.retune(load_timeout=10) == []
    stage.later(1)
    stage.want(2, A)
    assert stage.later(9) == ["1 refused: load_timeout"]
    assert stage.later(1) == ["2 refused: load_timeout"]


def test_a_longer_load_timeout_is_for_who_comes_then() -> None:
    stage = Stage(load_timeout=10)
    stage.want(1, A)
    stage.retune(load_timeout=1000)
    stage.want(2, A)
    assert stage.later(10)[0] == "1 refused: load_timeout"


def test_a_request_that_is_served_at_its_deadline_is_served() -> None:
    stage = Stage(load_timeout=100)
    stage.want(1, A)
    stage.now += 100
    assert stage.report(A, Fact.READY) == ["a ready", "1 gets a"]


@pytest.mark.parametrize(
    ("played", "why"),
    [
        ("starting", "its engine is still starting"),
        ("crashing", "its engine keeps crashing"),
        ("crowded out", "other models have not made room for it"),
        ("promised", "other models have not made room for it"),
        ("draining", "its earlier engine has not ended yet"),
    ],
)
def test_a_request_that_waited_too_long_is_told_for_what(played: str, why: str) -> None:
    stage = Stage(max_models=1, load_timeout=100, drain_timeout=math.inf, restart_budget=9)
    if played == "starting":
        stage.want(1, A)
    elif played == "crashing":
        stage.want(1, A)
        stage.later(99.9)
        stage.report(A, Fact.EXITED)
    elif played == "crowded out":
        stage.want(2, B)
        stage.want(1, A)
    elif played == "promised":
        stage.load(B)
        stage.want(2, B)
        stage.want(1, A)
    elif played == "draining":
        stage.load(A)
        stage.want(2, A)
        stage.unload(A)
        stage.want(1, A)
    assert "1 refused: load_timeout" in stage.later(100)
    assert why in stage.errors[1].message
    assert stage.errors[1].hint


def test_without_a_load_timeout_a_load_may_last() -> None:
    stage = Stage(load_timeout=math.inf)
    stage.want(1, A)
    assert stage.fleet.next_deadline() is None
    assert stage.later(1e9) == []


def test_who_does_not_stop_is_killed_again_and_again() -> None:
    stage = Stage(stop_timeout=10)
    stage.load(A)
    assert stage.unload(A) == ["a stopping", "cut a", "term a"]
    assert stage.later(30) == ["kill a", "kill a", "kill a"]
    assert stage.report(A, Fact.EXITED) == ["a gone"]


def test_timeouts_of_zero_do_not_make_the_timer_spin() -> None:
    stage = Stage(load_timeout=0, stop_timeout=0, drain_timeout=0)
    stage.want(1, A)
    assert "kill a" in stage.later(0.25)  # later() itself fails when the timer does not move on


def test_a_late_timer_does_what_is_due_and_no_more() -> None:
    stage = Stage(load_timeout=100, stop_timeout=10)
    stage.load(A)
    stage.unload(A)
    stage.now += 1000
    assert stage.fleet.tick(stage.now)
    assert stage.fleet.tick(stage.now) == []
    assert stage.fleet.next_deadline() == stage.now + 10
