"""Rules of the fleet: how long a model stays loaded.  Ollama's semantics, so that `ps` and `stop` mean the same."""

from __future__ import annotations

import math

import pytest

from hyperllamad.core.instance import Fact
from hyperllamad.core.patience import SPREAD
from tests.core.stage import A, Stage


def test_the_timer_starts_when_the_last_request_ends() -> None:
    stage = Stage(keep_alive=300)
    stage.load(A)
    stage.want(1, A)
    stage.want(2, A)
    stage.later(1000)
    stage.release(1)
    assert stage.later(1000) == []
    stage.release(2)
    assert stage.expires_in(A) == 300
    assert stage.later(299) == []
    assert stage.later(1) == ["a stopping", "cut a", "term a"]


def test_a_request_in_time_stops_the_timer() -> None:
    stage = Stage(keep_alive=300)
    stage.load(A)
    stage.later(250)
    assert stage.want(1, A) == ["1 gets a"]
    assert stage.later(500) == []


def test_a_new_instance_keeps_what_its_request_says_else_what_is_configured() -> None:
    stage = Stage(keep_alive=300)
    stage.want(1, A)
    assert stage.view(A).keep_alive == 300
    other = Stage(keep_alive=300)
    other.want(1, A, keep_alive=60)
    assert other.view(A).keep_alive == 60


def test_a_request_with_a_keep_alive_sets_it_and_one_without_leaves_it() -> None:
    stage = Stage(keep_alive=300)
    stage.load(A)
    stage.want(1, A, keep_alive=600)
    stage.release(1)
    assert stage.expires_in(A) == 600
    stage.want(2, A)
    stage.release(2)
    assert stage.expires_in(A) == 600


def test_the_keep_alive_of_a_waiting_request_holds_from_when_it_is_served() -> None:
    stage = Stage(keep_alive=300)
    stage.want(1, A)
    stage.want(2, A, keep_alive=600)
    assert stage.view(A).keep_alive == 300
    stage.report(A, Fact.READY)
    assert stage.view(A).keep_alive == 600


def test_for_ever_is_for_ever() -> None:
    stage = Stage()
    stage.want(1, A, keep_alive=math.inf)
    stage.report(A, Fact.READY)
    stage.release(1)
    assert stage.expires_in(A) == math.inf
    assert stage.fleet.next_deadline() is None
    assert stage.later(1e9) == []


def test_zero_is_until_the_request_ends() -> None:
    stage = Stage()
    stage.want(1, A, keep_alive=0)
    assert stage.report(A, Fact.READY) == ["a ready", "1 gets a"]
    stage.later(100)
    assert stage.release(1) == ["a stopping", "cut a", "term a"]


def test_zero_waits_for_the_other_requests() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    stage.want(2, A, keep_alive=0)
    assert stage.release(2) == []
    assert stage.release(1) == ["a stopping", "cut a", "term a"]


def test_while_it_arrives_nobody_knows_when_it_goes() -> None:
    stage = Stage()
    stage.want(1, A)
    assert stage.expires_in(A) is None


def test_in_its_first_use_the_time_moves_on() -> None:
    stage = Stage(keep_alive=300)
    stage.want(1, A)
    stage.report(A, Fact.READY)
    assert stage.expires_in(A) == 300
    stage.later(50)
    assert stage.expires_in(A) == 300


def test_while_it_is_used_again_the_time_stands_still() -> None:
    stage = Stage(keep_alive=300)
    stage.load(A)
    before = stage.view(A).expires_at
    stage.want(1, A, keep_alive=1000)
    stage.later(50)
    assert stage.view(A).expires_at == before


def test_who_is_leaving_shows_a_time_in_the_past() -> None:
    """Ollama's command line prints "Stopping..." for it."""
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    stage.unload(A)
    stage.later(2)
    assert stage.state(A) == "draining"
    assert stage.expires_in(A) == -2
    stage.release(1)
    stage.later(1)
    assert stage.state(A) == "stopping"
    assert stage.expires_in(A) == -1


# -- keep(): a keep_alive without a request ------------------------------------------------------------------------


def test_keeping_an_idle_model_starts_its_timer_again() -> None:
    stage = Stage(keep_alive=300)
    stage.load(A)
    stage.later(200)
    assert stage.keep(A, 60) == []
    assert stage.expires_in(A) == 60
    assert stage.later(60) == ["a stopping", "cut a", "term a"]


def test_keep_zero_stops_an_idle_model_at_once() -> None:
    stage = Stage()
    stage.load(A)
    assert stage.keep(A, 0) == ["a stopping", "cut a", "term a"]


def test_keep_zero_lets_a_busy_model_finish() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    assert stage.keep(A, 0) == []
    assert stage.expires_in(A) == 0
    stage.later(5)
    assert stage.expires_in(A) == -5
    assert stage.release(1) == ["a stopping", "cut a", "term a"]


def test_a_request_before_the_stop_reuses_the_model_and_may_keep_it() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    stage.keep(A, 0)
    assert stage.want(2, A) == ["2 gets a"]
    assert stage.release(1) == []
    assert stage.want(3, A, keep_alive=60) == ["3 gets a"]
    stage.release(2)
    assert stage.release(3) == []
    assert stage.expires_in(A) == 60


def test_a_request_just_before_the_timer_is_served_still_reuses_the_model() -> None:
    stage = Stage(keep_alive=300)
    stage.load(A)
    stage.now += 300
    assert stage.want(1, A) == ["1 gets a"]


def test_keeping_a_busy_model_longer_leaves_its_time_until_it_is_idle() -> None:
    stage = Stage(keep_alive=300)
    stage.load(A)
    before = stage.view(A).expires_at
    stage.want(1, A)
    stage.keep(A, 1000)
    assert stage.view(A).expires_at == before
    stage.release(1)
    assert stage.expires_in(A) == 1000


def test_keeping_a_model_that_arrives_holds_from_when_it_is_ready() -> None:
    stage = Stage(keep_alive=300)
    stage.want(1, A)
    stage.release(1)
    stage.keep(A, 60)
    assert stage.expires_in(A) is None
    stage.later(90)
    assert stage.report(A, Fact.READY) == ["a ready"]
    assert stage.expires_in(A) == 60


def test_keep_zero_of_a_model_that_arrives_for_nobody_stops_it_when_it_is_ready() -> None:
    stage = Stage()
    stage.want(1, A)
    stage.release(1)
    assert stage.keep(A, 0) == []
    assert stage.report(A, Fact.READY) == ["a ready", "a stopping", "cut a", "term a"]


def test_keep_of_a_model_that_is_not_there_is_nothing() -> None:
    stage = Stage()
    assert stage.keep(A, 0) == []


def test_a_request_for_a_stopping_model_gets_a_new_instance() -> None:
    stage = Stage()
    stage.load(A)
    stage.keep(A, 0)
    assert stage.want(1, A) == []
    assert stage.report(A, Fact.EXITED) == ["a gone", "a waiting", "a starting", "spawn a"]
    assert stage.report(A, Fact.READY) == ["a ready", "1 gets a"]


# -- and crashes ---------------------------------------------------------------------------------------------------


def test_the_timer_runs_on_through_a_crash() -> None:
    stage = Stage(keep_alive=300)
    stage.load(A)
    stage.later(100)
    before = stage.view(A).expires_at
    stage.report(A, Fact.EXITED)
    assert stage.view(A).expires_at == before
    stage.later(0.5)
    stage.report(A, Fact.READY)
    assert stage.view(A).expires_at == before == stage.now + 198.5
    assert stage.later(198) == []
    assert stage.later(0.5) == ["a stopping", "cut a", "term a"]


def test_what_expires_in_the_pause_after_a_crash_goes() -> None:
    stage = Stage(keep_alive=10)
    stage.load(A)
    stage.later(8.8)
    stage.report(A, Fact.EXITED)
    assert stage.later(0.5) == ["a gone"]


def test_what_expires_at_the_end_of_the_pause_is_not_started_again() -> None:
    stage = Stage(keep_alive=10)
    stage.load(A)
    stage.now += 8.5
    assert stage.view(A).expires_at == stage.now + 0.5
    stage.report(A, Fact.EXITED)
    assert stage.later(0.5) == ["a gone"]


def test_what_expires_in_the_pause_stays_for_those_who_wait() -> None:
    stage = Stage(keep_alive=10)
    stage.load(A)
    stage.later(8.8)
    stage.report(A, Fact.EXITED)
    stage.want(1, A)
    assert stage.later(0.5 * (1 + SPREAD)) == ["a starting", "spawn a"]
    assert stage.report(A, Fact.READY) == ["a ready", "1 gets a"]


def test_what_expires_while_it_comes_back_goes_when_it_is_ready() -> None:
    stage = Stage(keep_alive=10)
    stage.load(A)
    stage.report(A, Fact.EXITED)
    stage.later(20)
    assert stage.state(A) == "starting"
    assert stage.report(A, Fact.READY) == ["a ready", "a stopping", "cut a", "term a"]


def test_a_crash_ends_the_requests_and_so_starts_the_timer() -> None:
    stage = Stage(keep_alive=300)
    stage.load(A)
    stage.want(1, A)
    stage.later(1000)
    stage.report(A, Fact.EXITED)
    assert stage.expires_in(A) == 300


def test_a_crash_of_a_model_that_was_to_go_after_its_request_is_its_end() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A, keep_alive=0)
    assert stage.report(A, Fact.EXITED) == ["a backoff", "cut a", "a gone"]


@pytest.mark.parametrize(("keep_alive", "then"), [(0, ["a gone"]), (60, [])])
def test_keep_reaches_a_model_in_the_pause(keep_alive: float, then: list[str]) -> None:
    stage = Stage(keep_alive=300)
    stage.load(A)
    stage.report(A, Fact.EXITED)
    assert stage.keep(A, keep_alive) == then
    if not then:
        assert stage.expires_in(A) == 60


def test_keep_zero_reaches_a_sick_model_that_is_being_killed() -> None:
    stage = Stage()
    stage.load(A)
    stage.report(A, Fact.SICK)
    stage.keep(A, 0)
    assert stage.report(A, Fact.EXITED) == ["a backoff", "a gone"]


def test_keep_of_a_failed_one_changes_nothing_to_be_seen() -> None:
    stage = Stage(restart_budget=0)
    stage.load(A)
    stage.report(A, Fact.EXITED)
    assert stage.keep(A, 0) == []
    assert stage.state(A) == "failed"
    assert stage.expires_in(A) is None
