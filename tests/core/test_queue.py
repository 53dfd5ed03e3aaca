"""Whose turn it is among the clients of a model, and who gives way when too many wait."""

from __future__ import annotations

import math

import pytest

from hyperllamad.core.models import NO_TERMS, Terms
from hyperllamad.core.queue import SEEN_FOR, Overflow, Queue, Wish, intake, part, yields
from tests.core.stage import A, B


class Line:
    """A queue on a clock, whose answers read as client and lease."""

    def __init__(self, longest: int = 100) -> None:
        self.queue = Queue(longest=longest)
        self.now = 0.0
        self.number = 0

    def join(self, client: str, count: int = 1, weight: float = 1.0) -> None:
        for _ in range(count):
            self.number += 1
            wish = Wish(self.number, A, None, self.now, self.now + 100, client, weight)
            self.queue.join(wish, self.now)

    def serve(self, parallel: int, *, tells: bool = False, slows: bool = False) -> str:
        """Everybody who is served now, one letter each."""
        served = ""
        terms = Terms(parallel=parallel, tells_begin=tells, slows=slows)
        while wish := self.queue.next(A, terms, self.now):
            self.queue.grant(wish)
            served += wish.client
        return served

    def met(self, client: str) -> None:
        """It was served once, alone."""
        self.join(client)
        assert self.serve(0) == client
        self.end(self.number)

    def end(self, *leases: int) -> None:
        for lease in leases:
            self.queue.end(lease, self.now)


def test_one_client_is_served_in_his_own_order() -> None:
    line = Line()
    line.join("a", 3)
    first = line.queue.next(A, NO_TERMS, 0.0)
    assert first is not None
    assert first.lease == 1
    assert line.serve(0) == "aaa"


def test_a_client_with_one_request_passes_one_with_many() -> None:
    line = Line()
    line.join("a", 500)
    line.join("b")
    assert line.serve(1) == "a"
    line.end(1)
    assert line.serve(1) == "b"


def test_slots_are_shared_by_who_has_fewest_running() -> None:
    line = Line()
    line.join("a", 10)
    line.join("b", 10)
    assert sorted(line.serve(4)) == ["a", "a", "b", "b"]


def test_who_has_more_running_waits_however_few_turns_he_had() -> None:
    """The turns of a round are even here; what one still has running from before is what counts."""
    line = Line()
    line.join("a", 10)
    assert line.serve(4) == "aaaa"
    line.join("b", 10)
    line.end(1, 2)
    assert line.serve(4) == "bb"
    line.end(3)
    assert line.serve(4) == "a", "each has one more than this"


def test_weights_share_slots_in_their_ratio() -> None:
    line = Line()
    line.join("a", 10, weight=3.0)
    line.join("b", 10)
    assert sorted(line.serve(4)) == ["a", "a", "a", "b"]
    line.end(*[lease for lease, wish in line.queue._open.items() if wish.client == "b"])
    assert line.serve(4) == "b"


def test_weights_share_turns_in_their_ratio() -> None:
    line = Line()
    line.join("a", 60, weight=2.0)
    line.join("b", 60)
    served = ""
    for _ in range(30):
        served += line.serve(1)
        line.end(*list(line.queue._open))
    assert served.count("a") == 2 * served.count("b") == 20


@pytest.mark.parametrize("terms", [{}, {"tells": True}, {"slows": True}])
def test_alone_a_client_has_every_slot(terms: dict[str, bool]) -> None:
    line = Line()
    line.join("a", 10)
    assert line.serve(4, **terms) == "aaaa"


@pytest.mark.parametrize(("parallel", "tells"), [(32, False), (0, True), (0, False)])
def test_where_begins_are_not_told_or_slots_not_counted_all_are_taken_in(parallel: int, tells: bool) -> None:
    line = Line()
    line.met("b")
    line.join("a", 10)
    assert line.serve(parallel, tells=tells) == "a" * 10


def test_once_another_was_seen_the_last_slot_is_kept_for_him() -> None:
    line = Line()
    line.join("b")
    assert line.serve(4) == "b"
    line.end(1)
    line.join("a", 10)
    assert line.serve(4) == "aaa"
    assert line.queue.slot_opens(A) == SEEN_FOR
    line.join("b")
    assert line.serve(4) == "b", "at once, whatever the other one has running"
    line.end(*[lease for lease, wish in line.queue._open.items() if wish.client == "b"])
    line.now += SEEN_FOR
    assert line.serve(4) == "a", "he has not come back"


def test_nothing_is_kept_for_whoever_only_loads_the_model() -> None:
    line = Line()
    line.met("")
    line.join("a", 10)
    assert line.serve(4, slows=True, tells=True) == "aaaa"


def test_with_one_slot_none_is_kept() -> None:
    line = Line()
    line.join("b")
    line.serve(1)
    line.end(1)
    line.join("a", 2)
    assert line.serve(1) == "a"
    assert line.queue.slot_opens(A) == math.inf


@pytest.mark.parametrize(("parallel", "taken_in"), [(2, 1), (16, 1), (32, 2), (256, 16)])
def test_how_many_are_taken_in_at_once(parallel: int, taken_in: int) -> None:
    assert intake(parallel) == taken_in


def test_beside_another_few_of_a_clients_requests_are_taken_in_at_once() -> None:
    line = Line()
    line.met("b")
    line.join("a", 10)
    assert line.serve(32, tells=True) == "aa"
    line.join("b", 1)
    assert line.serve(32, tells=True) == "b", "of another's none is on its way"
    first, second = 2, 3  # the leases of `a` that were granted
    assert line.queue.begun(first)
    assert not line.queue.begun(first), "it is told once"
    assert line.serve(32, tells=True) == "a"
    line.end(second)
    assert line.serve(32, tells=True) == "a", "one that ends is not on its way any more"
    assert not line.queue.begun(second)


def test_once_the_other_has_not_come_back_all_are_taken_in_at_once() -> None:
    line = Line()
    line.met("b")
    line.join("a", 10)
    assert line.serve(32, tells=True) == "aa"
    assert line.queue.slot_opens(A) == SEEN_FOR
    line.now += SEEN_FOR
    assert line.serve(32, tells=True) == "a" * 8


def test_nothing_waits_for_a_begin_of_which_nobody_waits() -> None:
    line = Line()
    line.met("b")
    line.join("a")
    assert line.serve(32, tells=True) == "a"
    assert not line.queue.begun(2)
    assert not line.queue.begun(99)


@pytest.mark.parametrize(("parallel", "slots"), [(2, 1), (4, 1), (8, 2), (256, 64)])
def test_the_part_of_one_client(parallel: int, slots: int) -> None:
    assert part(parallel) == slots


def test_where_answers_slow_each_other_one_client_has_a_part_beside_one_who_asks_for_little() -> None:
    line = Line()
    line.met("b")
    line.join("a", 10)
    assert line.serve(8, slows=True) == "aa"
    assert line.queue.slot_opens(A) == SEEN_FOR
    line.join("b", 1)
    assert line.serve(8, slows=True) == "b"
    line.now += SEEN_FOR
    line.end(*[lease for lease, wish in line.queue._open.items() if wish.client == "b"])
    assert line.serve(8, slows=True) == "", "he was there a moment ago"
    line.now += SEEN_FOR
    assert line.serve(8, slows=True) == "a" * 6


def test_of_two_who_ask_for_much_neither_leaves_a_slot_unused() -> None:
    line = Line()
    line.join("a", 10)
    line.join("b", 10)
    assert sorted(line.serve(4, slows=True)) == ["a", "a", "b", "b"]


def test_beside_a_third_one_who_asks_for_little_each_of_two_has_a_part() -> None:
    line = Line()
    line.met("c")
    line.join("a", 10)
    line.join("b", 10)
    assert sorted(line.serve(4, slows=True)) == ["a", "b"]


def test_who_leaves_frees_his_place() -> None:
    line = Line(longest=2)
    line.join("a", 2)
    assert line.queue.overflow(A, "a", 1.0) is not None
    assert line.queue.leave(1) is not None
    assert line.queue.overflow(A, "a", 1.0) is None
    assert line.queue.leave(1) is None
    assert line.serve(0) == "a"


def test_a_full_queue_is_that_of_one_model() -> None:
    line = Line(longest=1)
    line.join("a")
    assert line.queue.overflow(A, "b", 1.0) == Overflow("b", {"a": 1}, {"a": 1.0, "b": 1.0})
    assert line.queue.overflow(B, "b", 1.0) is None


@pytest.mark.parametrize(
    ("waiting", "weights", "client", "loser"),
    [
        ({"a": 3}, {}, "a", None),
        ({"a": 3}, {}, "b", "a"),
        ({"a": 2, "b": 1}, {}, "b", None),  # he would have as many
        ({"a": 3, "b": 1}, {}, "b", "a"),
        ({"a": 1, "b": 1}, {}, "c", None),
        ({"a": 4, "b": 2}, {"a": 4.0}, "c", "b"),
        ({"a": 4, "b": 4}, {}, "c", "b"),  # of two with as many: always the same one
    ],
)
def test_who_gives_way(waiting: dict[str, int], weights: dict[str, float], client: str, loser: str | None) -> None:
    assert yields(Overflow(client, waiting, weights)) == loser


def test_the_pace_is_that_of_the_last_ends() -> None:
    line = Line()
    line.join("a", 30)
    assert line.queue.pause(A, 0.0) is None
    for lease in range(1, 11):
        assert line.serve(1) == "a"
        line.now += 2.0
        line.end(lease)
    assert line.queue.pause(A, line.now) == pytest.approx((20 + 1) * 2.0)
    assert line.queue.pause(A, line.now + 18.0) == pytest.approx((20 + 1) * 4.0), "nothing has ended since"


def test_clients_of_a_model_that_is_never_idle_are_forgotten() -> None:
    line = Line()
    line.join("always")
    assert line.serve(0) == "always"
    for number in range(1000):
        line.join(str(number))
        assert line.serve(0) == str(number)
        line.end(line.number)
        line.now += 1.0
    (kept,) = line.queue._lines.values()
    for remembered in (kept.seen, kept.weights, kept.finish, kept.running, kept.coming):
        assert len(remembered) <= 2 * SEEN_FOR + 2
    line.end(1)
    line.join("always")
    assert line.serve(1) == "always"


def test_clients_and_models_are_forgotten() -> None:
    line = Line()
    line.join("a")
    line.serve(1)
    line.end(1)
    line.queue.prune(SEEN_FOR)
    assert line.queue._lines
    line.queue.prune(SEEN_FOR + 1)
    assert not line.queue._lines
