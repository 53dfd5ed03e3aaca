"""core/quota.py: who is let in, and whether the time told to the others is the truth."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperllamad.core.errors import TooManyRequestsError
from hyperllamad.core.quota import Limits, Quota


def refused(quota: Quota, limits: Limits, now: float) -> TooManyRequestsError:
    with pytest.raises(TooManyRequestsError) as caught:
        quota.enter(limits, now)
    return caught.value


def test_without_limits_everybody_is_let_in() -> None:
    quota = Quota()
    numbers = {quota.enter(Limits(), 0.0) for _ in range(1000)}
    assert len(numbers) == quota.running == 1000
    for number in numbers:
        quota.leave(number, 10**9, 1.0)
    assert quota.running == 0
    quota.enter(Limits(), 1.0)


def test_so_many_at_once_and_no_more() -> None:
    quota, limits = Quota(), Limits(concurrent=2)
    first, _ = quota.enter(limits, 0.0), quota.enter(limits, 0.0)
    error = refused(quota, limits, 1.0)
    assert (error.status, error.of, error.retry_after) == (429, "requests", 1)
    assert "2 requests at once" in str(error)
    quota.leave(first, 0, 2.0)
    quota.leave(first, 0, 2.0)  # again does nothing
    quota.enter(limits, 2.0)
    refused(quota, limits, 2.0)


def test_the_wait_for_another_request_is_what_they_usually_take() -> None:
    quota, limits = Quota(), Limits(concurrent=1)
    quota.leave(quota.enter(limits, 0.0), 0, 30.0)
    quota.enter(limits, 100.0)
    assert refused(quota, limits, 110.0).retry_after == 20
    assert refused(quota, limits, 200.0).retry_after == 1


def test_tokens_are_paid_afterwards_and_debt_is_waited_off() -> None:
    quota, limits = Quota(), Limits(tokens_per_minute=60)
    quota.leave(quota.enter(limits, 0.0), 100, 10.0)  # 60 to begin with, and never more: 40 in debt at 0
    error = refused(quota, limits, 10.0)
    assert (error.of, error.retry_after) == ("tokens", 31)
    refused(quota, limits, 40.9)
    quota.enter(limits, 41.0)


def test_a_limit_that_is_lowered_or_raised_holds_at_once() -> None:
    quota = Quota()
    quota.leave(quota.enter(Limits(tokens_per_minute=1000), 0.0), 500, 0.0)
    number = quota.enter(Limits(tokens_per_minute=10), 0.0)
    quota.leave(number, 11, 0.0)
    refused(quota, Limits(tokens_per_minute=10), 0.0)
    assert refused(quota, Limits(tokens_per_minute=1000), 0.0).retry_after == 1
    quota.enter(Limits(), 0.0)


@settings(max_examples=300, deadline=None)
@given(
    st.builds(Limits, st.integers(0, 3), st.integers(0, 500)),
    st.lists(st.tuples(st.floats(0, 100), st.booleans(), st.integers(0, 2000)), min_size=5, max_size=40),
)
@example(  # seven hours of debt at one token a minute
    Limits(tokens_per_minute=1),
    [(0.0, False, 0), (1.2116352536576045, False, 130), (0.0, False, 0), (0.0, False, 417), (0.0, False, 0)],
)
def test_who_waits_as_long_as_told_is_let_in_and_no_limit_is_broken(
    limits: Limits, steps: list[tuple[float, bool, int]]
) -> None:
    quota, now, under_way = Quota(), 0.0, []
    for pause, begin, tokens in steps:
        now += pause
        if not begin and under_way:
            quota.leave(under_way.pop(), tokens, now)
            continue
        try:
            under_way.append(quota.enter(limits, now))
        except TooManyRequestsError as error:
            assert error.retry_after >= 1
            if error.of == "tokens":  # nothing else is charged meanwhile, so the promise can be kept
                now += error.retry_after
                for number in under_way:
                    quota.leave(number, 0, now)
                under_way = [quota.enter(limits, now)]
        assert quota.running == len(under_way)
        assert not limits.concurrent or quota.running <= limits.concurrent
