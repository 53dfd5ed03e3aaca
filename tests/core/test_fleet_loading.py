"""Rules of the fleet: how a model comes up, and who waits for it."""

from __future__ import annotations

from hyperllamad.core.errors import BusyError
from hyperllamad.core.instance import Fact
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
