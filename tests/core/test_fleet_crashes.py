"""Rules of the fleet: crashes, the pauses after them, and what a model that has failed tells whoever asks."""

from __future__ import annotations

import math

import pytest

from hyperllamad.core.errors import BusyError, EngineRefusedError, HyperLlamaError, LoadFailedError
from hyperllamad.core.instance import Fact
from hyperllamad.core.patience import SPREAD
from tests.core.stage import A, B, Stage


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


def almost_ten_minutes_ready() -> Stage:
    """One instance that has crashed once, and has been ready for 599 seconds since."""
    stage = Stage(restart_budget=1, keep_alive=math.inf)
    stage.load(A)
    stage.report(A, Fact.EXITED)
    stage.later(0.5)
    stage.report(A, Fact.READY)
    stage.later(599)
    return stage


def test_ten_minutes_of_being_ready_make_good_for_all_crashes() -> None:
    stage = almost_ten_minutes_ready()
    assert stage.view(A).crashes == 1
    stage.later(1)
    assert stage.view(A).crashes == 0
    assert stage.report(A, Fact.EXITED) == ["a backoff", "cut a"]
    assert stage.view(A).crashes == 1


def test_less_than_ten_minutes_do_not() -> None:
    stage = almost_ten_minutes_ready()
    assert stage.report(A, Fact.EXITED) == ["a failed", "cut a"]


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
