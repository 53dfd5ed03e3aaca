"""Rules of the fleet: how a model comes up, and what its requests are told when it does not."""

from __future__ import annotations

import math

import pytest

from hyperllamad.core.errors import BusyError, EngineRefusedError, HyperLlamaError, LoadFailedError, LoadTimeoutError
from hyperllamad.core.instance import Fact
from hyperllamad.core.patience import SPREAD
from tests.core.stage import A, B, Stage

# -- loading -------------------------------------------------------------------------------------------------------


def test_the_first_request_starts_the_model_and_gets_it_when_it_is_ready() -> None:
    stage = Stage()
    assert stage.want(1, A) == ["a waiting", "a starting", "spawn a"]
    stage.later(5)
    assert stage.report(A, Fact.READY) == ["a ready", "1 gets a"]


def test_requests_for_a_model_that_starts_share_it_oldest_first() -> None:
    stage = Stage()
    stage.want(3, A)
    assert stage.want(2, A) == []
    assert stage.want(1, A) == []
    assert stage.report(A, Fact.READY) == ["a ready", "3 gets a", "2 gets a", "1 gets a"]
    assert stage.view(A).leases == 3


def test_a_ready_model_serves_at_once() -> None:
    stage = Stage()
    stage.load(A)
    assert stage.want(1, A) == ["1 gets a"]
    assert stage.want(2, A) == ["2 gets a"]


def test_models_load_beside_each_other() -> None:
    stage = Stage(max_models=2)
    assert "spawn a" in stage.want(1, A)
    assert "spawn b" in stage.want(2, B)
    assert stage.report(B, Fact.READY) == ["b ready", "2 gets b"], "nobody waits for a model that is not his"


def test_a_client_that_hangs_up_while_it_waits_is_forgotten() -> None:
    stage = Stage()
    stage.want(1, A)
    stage.want(2, A)
    assert stage.release(1) == []
    assert stage.report(A, Fact.READY) == ["a ready", "2 gets a"]


def test_a_load_that_nobody_waits_for_any_more_still_finishes() -> None:
    stage = Stage(keep_alive=30)
    stage.want(1, A)
    assert stage.release(1) == []
    assert stage.report(A, Fact.READY) == ["a ready"]
    assert stage.later(30) == ["a stopping", "cut a", "term a"]


def test_a_release_is_taken_any_number_of_times() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    stage.want(2, A)
    assert stage.release(1) == stage.release(1) == stage.release(99) == []
    assert stage.view(A).leases == 1


def test_facts_about_a_model_that_has_no_instance_are_late_news() -> None:
    stage = Stage()
    assert [stage.report(A, fact) for fact in Fact] == [[]] * len(Fact)


# -- the queue -----------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses() -> None:
    stage = Stage(max_queue=2)
    stage.want(1, A)
    stage.want(2, A)
    assert stage.want(3, A) == ["3 refused: busy"]
    assert isinstance(stage.errors[3], BusyError)
    stage.release(1)
    assert stage.want(4, A) == []


def test_only_who_must_wait_counts() -> None:
    stage = Stage(max_queue=1, restart_budget=0)
    stage.load(A)
    stage.want(1, B)
    assert stage.want(2, A) == ["2 gets a"]
    assert stage.want(3, B) == ["3 refused: busy"]
    stage.report(A, Fact.EXITED)
    assert stage.want(4, A) == ["4 refused: load_failed"], "its answer is known: it need not wait"


def test_without_a_queue_a_single_request_can_still_load() -> None:
    stage = Stage(max_queue=0)
    assert "spawn a" in stage.want(1, A)
    assert stage.want(2, A) == ["2 refused: busy"]


# -- crashes -------------------------------------------------------------------------------------------------------


def test_a_crash_while_starting_is_tried_again_after_a_pause_that_doubles() -> None:
    stage = Stage(restart_budget=9, load_timeout=math.inf)
    stage.want(1, A)
    pauses = []
    for _ in range(9):
        assert stage.report(A, Fact.EXITED) == ["a backoff"]
        since, at = stage.now, stage.fleet.next_deadline()
        assert at is not None
        assert stage.later(at - since) == ["a starting", "spawn a"]
        pauses.append(stage.now - since)
    least = [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert all(one <= pause <= (1 + SPREAD) * one for one, pause in zip(least, pauses, strict=True))
    assert len({pause / one for one, pause in zip(least, pauses, strict=True)}) > 5, "not all the same"


def test_a_huge_restart_budget_breaks_nothing() -> None:
    stage = Stage(restart_budget=10_000, load_timeout=math.inf)
    stage.want(1, A)
    for _ in range(2000):
        stage.report(A, Fact.EXITED)
        stage.later(30)
    assert stage.view(A).crashes == 2000


def test_waiting_requests_stay_through_the_pause() -> None:
    stage = Stage()
    stage.want(1, A)
    stage.report(A, Fact.EXITED)
    assert stage.want(2, A) == []
    assert stage.later(0.5) == ["a starting", "spawn a"]
    assert stage.report(A, Fact.READY) == ["a ready", "1 gets a", "2 gets a"]


def test_when_the_budget_is_spent_everybody_is_told_why() -> None:
    stage = Stage(restart_budget=1)
    stage.want(1, A)
    stage.report(A, Fact.EXITED, LoadFailedError("first"))
    stage.want(2, A)
    stage.later(0.5)
    assert stage.report(A, Fact.EXITED, LoadFailedError("second", hint="try less")) == [
        "a failed",
        "1 refused: load_failed",
        "2 refused: load_failed",
    ]
    assert [str(stage.errors[lease]) for lease in (1, 2)] == ["second (try less)"] * 2


def test_a_failure_that_would_repeat_is_not_repeated() -> None:
    stage = Stage(restart_budget=9)
    stage.want(1, A)
    assert stage.report(A, Fact.BROKEN, LoadFailedError("no such file")) == ["a failed", "1 refused: load_failed"]
    assert str(stage.errors[1]) == "no such file"


def test_a_failure_without_an_explanation_is_still_an_answer() -> None:
    stage = Stage()
    stage.want(1, A)
    stage.report(A, Fact.BROKEN)
    assert stage.errors[1].message == "the engine ended without giving a reason"
    assert stage.errors[1].hint


def test_an_explanation_is_shown_through_the_pause_and_forgotten_when_it_got_ready() -> None:
    stage = Stage()
    stage.want(1, A)
    stage.report(A, Fact.EXITED, LoadFailedError("port taken"))
    assert str(stage.view(A).error) == "port taken"
    stage.later(0.5)
    assert str(stage.view(A).error) == "port taken"
    stage.report(A, Fact.READY)
    assert stage.view(A).error is None


def test_news_that_changes_nothing_explains_nothing() -> None:
    stage = Stage()
    stage.want(1, A)
    assert stage.report(A, Fact.SICK, LoadFailedError("not yet answering")) == []
    assert stage.view(A).error is None


@pytest.mark.parametrize(
    "error",
    [LoadFailedError("too big", hint="use less"), BusyError(), EngineRefusedError("no", status=418, hint="ask")],
)
def test_each_request_gets_an_error_of_its_own(error: HyperLlamaError) -> None:
    """One exception raised in many tasks would chain all their tracebacks."""
    stage = Stage()
    stage.want(1, A)
    stage.want(2, A)
    stage.report(A, Fact.BROKEN, error)
    told = [stage.errors[1], stage.errors[2]]
    assert told[0] is not told[1]
    assert error not in told
    for copy in told:
        assert type(copy) is type(error)
        assert (str(copy), copy.code, copy.status, copy.hint) == (str(error), error.code, error.status, error.hint)


def test_a_crash_while_serving_cuts_the_requests_and_restarts_by_itself() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    stage.want(2, A)
    assert stage.report(A, Fact.EXITED) == ["a backoff", "cut a"]
    assert stage.view(A).leases == 0
    assert stage.release(1) == stage.release(2) == [], "their clients come to know it later"
    assert stage.later(0.5) == ["a starting", "spawn a"]
    assert stage.report(A, Fact.READY) == ["a ready"]


def test_a_request_that_was_cut_has_nothing_to_do_with_the_next_life_of_its_model() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    stage.report(A, Fact.EXITED)
    stage.later(0.5)
    stage.report(A, Fact.READY)
    stage.want(2, A)
    assert stage.release(1) == []
    assert stage.view(A).leases == 1


def test_a_crash_while_serving_that_would_repeat_fails() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    assert stage.report(A, Fact.BROKEN, LoadFailedError("out of memory")) == ["a failed", "cut a"]
    assert stage.want(2, A) == ["2 refused: load_failed"]


def test_a_sick_engine_is_killed_and_restarted_and_serves_nobody_meanwhile() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    assert stage.report(A, Fact.SICK, LoadFailedError("it no longer answers")) == ["a stopping", "cut a", "kill a"]
    assert stage.want(2, A) == []
    assert stage.report(A, Fact.EXITED, LoadFailedError("killed by signal 9")) == ["a backoff"]
    assert str(stage.view(A).error) == "it no longer answers", "the cause, not what we did about it"
    stage.later(0.5)
    assert stage.report(A, Fact.READY) == ["a ready", "2 gets a"]


def test_the_end_of_a_sick_engine_explains_it_when_nothing_else_does() -> None:
    stage = Stage(restart_budget=0)
    stage.load(A)
    stage.report(A, Fact.SICK)
    assert stage.report(A, Fact.EXITED, LoadFailedError("killed by signal 9")) == ["a failed"]
    assert str(stage.view(A).error) == "killed by signal 9"


def test_ten_minutes_of_being_ready_make_good_for_all_crashes() -> None:
    stage = Stage(restart_budget=1, keep_alive=math.inf)
    stage.load(A)
    stage.report(A, Fact.EXITED)
    stage.later(0.5)
    stage.report(A, Fact.READY)
    stage.later(599)
    assert stage.view(A).crashes == 1
    stage.later(1)
    assert stage.view(A).crashes == 0
    assert stage.report(A, Fact.EXITED) == ["a backoff", "cut a"]
    assert stage.view(A).crashes == 1


def test_less_than_ten_minutes_do_not() -> None:
    stage = Stage(restart_budget=1, keep_alive=math.inf)
    stage.load(A)
    stage.report(A, Fact.EXITED)
    stage.later(0.5)
    stage.report(A, Fact.READY)
    stage.later(599)
    assert stage.report(A, Fact.EXITED) == ["a failed", "cut a"]


# -- failed ones ---------------------------------------------------------------------------------------------------


def test_a_failure_answers_for_five_seconds_and_then_a_request_starts_it_fresh() -> None:
    stage = Stage(restart_budget=1)
    stage.want(1, A)
    stage.report(A, Fact.EXITED)
    stage.later(0.5)
    stage.report(A, Fact.EXITED, LoadFailedError("out of memory"))
    stage.later(4.9)
    assert stage.want(2, A) == ["2 refused: load_failed"]
    assert str(stage.errors[2]) == "out of memory"
    stage.later(0.1)
    assert stage.state(A) == "failed"
    assert stage.want(3, A) == ["a waiting", "a starting", "spawn a"]
    assert stage.view(A).crashes == 0
    assert stage.view(A).error is None


def test_a_failed_one_starts_fresh_with_the_keep_alive_of_a_new_one() -> None:
    stage = Stage(keep_alive=300, restart_budget=0)
    stage.load(A)
    stage.keep(A, math.inf)
    stage.report(A, Fact.EXITED)
    stage.later(5)
    stage.want(2, A)
    assert stage.view(A).keep_alive == 300
    assert stage.expires_in(A) is None


def test_a_failed_one_holds_no_place_and_stays_to_be_read() -> None:
    stage = Stage(max_models=1, restart_budget=0)
    stage.want(1, A)
    stage.report(A, Fact.EXITED)
    assert stage.fleet.next_deadline() is None
    assert stage.want(2, B) == ["b waiting", "b starting", "spawn b"]
    stage.later(1)
    assert stage.state(A) == "failed"


def test_a_failed_one_needs_a_place_again_to_start() -> None:
    stage = Stage(max_models=1, restart_budget=0)
    stage.want(1, A)
    stage.report(A, Fact.EXITED)
    stage.want(2, B)
    stage.later(5)
    assert stage.want(3, A) == [], "the place is taken by one that is arriving"
    assert stage.report(B, Fact.READY) == ["b ready", "2 gets b", "b draining", "a waiting"]
    assert stage.release(2) == ["b stopping", "term b"]
    assert stage.report(B, Fact.EXITED) == ["b gone", "a starting", "spawn a"]


# -- deadlines -----------------------------------------------------------------------------------------------------


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
