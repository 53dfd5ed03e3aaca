"""Rules of the fleet: what an administrator may do, how everything ends, and what people see."""

from __future__ import annotations

import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.instance import Fact, State
from tests.core.stage import A, B, C, Stage

# -- unload --------------------------------------------------------------------------------------------------------


def test_unload_stops_an_idle_model() -> None:
    stage = Stage()
    stage.load(A)
    assert stage.unload(A) == ["a stopping", "cut a", "term a"]
    assert stage.unload(A) == []
    assert stage.report(A, Fact.EXITED) == ["a gone"]


def test_unload_lets_requests_finish() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    assert stage.unload(A) == ["a draining"]
    assert stage.unload(A) == []
    assert stage.release(1) == ["a stopping", "term a"]


def test_unload_now_cuts_them() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    assert stage.unload(A, cut=True) == ["a stopping", "cut a", "term a"]
    assert stage.release(1) == []


def test_unload_now_after_unload_cuts_them_too() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    stage.unload(A)
    assert stage.unload(A, cut=True) == ["a stopping", "cut a", "term a"]


def test_unload_of_a_model_that_arrives_starts_it_anew_for_those_who_wait() -> None:
    stage = Stage()
    stage.want(1, A)
    assert stage.unload(A) == ["a stopping", "term a"]
    assert stage.report(A, Fact.EXITED) == ["a gone", "a waiting", "a starting", "spawn a"]


def test_unload_of_a_model_in_the_pause_is_its_end() -> None:
    stage = Stage()
    stage.load(A)
    stage.report(A, Fact.EXITED)
    assert stage.unload(A) == ["a gone"]
    assert stage.fleet.next_deadline() is None


def test_unload_of_a_sick_model_keeps_it_from_coming_back() -> None:
    stage = Stage()
    stage.load(A)
    stage.report(A, Fact.SICK)
    assert stage.unload(A) == []
    assert stage.report(A, Fact.EXITED) == ["a gone"]


def test_unload_of_a_model_that_failed_forgets_it() -> None:
    stage = Stage()
    stage.want(1, A)
    stage.report(A, Fact.BROKEN)
    assert stage.unload(A) == ["a gone"]


def test_unload_of_a_model_that_is_not_there_is_nothing() -> None:
    assert Stage().unload(A) == []


# -- retry ---------------------------------------------------------------------------------------------------------


def test_retry_forgets_a_failure_so_that_the_next_request_starts_it() -> None:
    stage = Stage()
    stage.want(1, A)
    stage.report(A, Fact.BROKEN)
    assert stage.retry(A) == ["a gone"]
    assert stage.want(2, A) == ["a waiting", "a starting", "spawn a"]


def test_retry_ends_the_pause_after_a_crash() -> None:
    stage = Stage()
    stage.load(A)
    stage.report(A, Fact.EXITED)
    assert stage.retry(A) == ["a starting", "spawn a"]
    assert stage.view(A).crashes == 0


def test_retry_leaves_everything_else_alone() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, B)
    assert stage.retry(A) == stage.retry(B) == stage.retry(C) == []


# -- close ---------------------------------------------------------------------------------------------------------


def test_close_refuses_who_waits_and_lets_finish_who_is_served() -> None:
    stage = Stage(max_models=3)
    stage.load(A, B)
    stage.want(1, A)
    stage.want(2, C)
    assert stage.close() == [
        "2 refused: closing",
        "a draining",
        "b stopping",
        "cut b",
        "term b",
        "c stopping",
        "term c",
    ]
    assert stage.want(3, A) == ["3 refused: closing"]
    assert stage.release(1) == ["a stopping", "term a"]
    lines = [stage.report(key, Fact.EXITED) for key in (A, B, C)]
    assert lines == [["a gone"], ["b gone"], ["c gone"]]
    assert stage.fleet.views(stage.now) == ()
    assert stage.fleet.next_deadline() is None


def test_close_forgets_who_has_no_child() -> None:
    stage = Stage(max_models=2)
    stage.load(A, B)
    stage.report(B, Fact.EXITED)
    stage.want(1, A)
    stage.report(A, Fact.BROKEN)
    assert stage.close() == ["a gone", "b gone"]


def test_close_gives_up_promises() -> None:
    stage = Stage(max_models=1)
    stage.load(A)
    stage.want(1, A)
    stage.want(2, B)
    assert stage.close() == ["2 refused: closing", "b gone"]
    assert stage.state(A) == "draining"


def test_nothing_comes_back_after_close() -> None:
    stage = Stage()
    stage.load(A)
    stage.report(A, Fact.SICK)
    assert stage.close() == []
    assert stage.report(A, Fact.EXITED) == ["a gone"]


def test_closing_has_deadlines() -> None:
    stage = Stage(drain_timeout=60, stop_timeout=10)
    stage.load(A)
    stage.want(1, A)
    stage.close()
    assert stage.later(70) == ["a stopping", "cut a", "term a", "kill a"]


def test_close_twice_is_close() -> None:
    stage = Stage()
    stage.load(A)
    stage.close()
    assert stage.close() == []


# -- what people see -----------------------------------------------------------------------------------------------


def test_a_view_tells_everything_about_an_instance() -> None:
    stage = Stage(max_models=2, keep_alive=300, restart_budget=5)
    stage.want(1, A)
    stage.report(A, Fact.EXITED, LoadFailedError("boom"))
    stage.want(2, A)
    view = stage.view(A)
    assert (view.key, view.state, view.leases, view.waiting, view.crashes) == (A, State.BACKOFF, 0, 2, 1)
    assert (view.since, view.expires_at, str(view.error), view.keep_alive) == (stage.now, None, "boom", 300)


def test_since_is_when_the_state_began() -> None:
    stage = Stage()
    stage.load(A)
    ready_at = stage.view(A).since
    stage.later(5)
    stage.want(1, A)
    assert stage.view(A).since == ready_at
    stage.unload(A)
    assert stage.view(A).since == stage.now


def test_views_come_in_the_order_in_which_the_instances_were_made() -> None:
    stage = Stage(max_models=3)
    stage.load(B, A, C)
    assert [view.key for view in stage.fleet.views(stage.now)] == [B, A, C]


def test_nothing_is_timed_while_nothing_is_loaded() -> None:
    assert Stage().fleet.next_deadline() is None


@pytest.mark.parametrize("closed", [False, True])
def test_an_empty_fleet_in_a_log(closed: bool) -> None:
    stage = Stage()
    if closed:
        stage.close()
    assert repr(stage.fleet) == f"<Fleet 0 of 2 places, 0 waiting{', closing' if closed else ''}>"


def test_a_fleet_in_a_log() -> None:
    stage = Stage(max_models=2)
    stage.load(A, B)
    stage.want(1, A)
    stage.want(2, A)
    stage.want(3, C)
    assert repr(stage.fleet) == (
        "<Fleet 2 of 2 places, 1 waiting: "
        "aaaaaaaaaaaa-fff000 ready (2 leases), bbbbbbbbbbbb-fff000 stopping, cccccccccccc-fff000 waiting>"
    )
