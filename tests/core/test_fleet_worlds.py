"""The fleet in random worlds: whatever children, clients and administrators do, it keeps its promises."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st

from hyperllamad.core.instance import Fact
from tests.core.plays import KEYS, NEVER, TIMES, one_client, play
from tests.core.script import Ask, Birth, Meddling, Script
from tests.core.stage import A, B
from tests.core.world import World

pytestmark = pytest.mark.timeout(600)  # it takes seconds; but a broken promise is worth the time to shrink its script

ASKS = st.builds(
    Ask,
    at=TIMES,
    key=KEYS,
    use=st.sampled_from([0.0, 1.0, 5.0, 20.0, 90.0]),
    bears=st.sampled_from([math.inf] * 4 + [0.0, 3.0, 30.0]),
    keep_alive=st.sampled_from([None, None, 0.0, 7.0, math.inf]),
)
GOOD = st.builds(Birth, ready=st.sampled_from([0.0, 1.0, 5.0, 20.0]))
CRASHING = st.builds(
    Birth,
    ready=st.just(1.0),
    turns=st.sampled_from([1.0, 2.0, 10.0, 40.0]),
    how=st.sampled_from([Fact.EXITED, Fact.EXITED, Fact.BROKEN, Fact.SICK]),
)
HOPELESS = st.builds(
    Birth,
    ready=st.sampled_from([1.0, 5.0, 59.5, 60.0, math.inf]),
    turns=st.sampled_from([0.0, 0.5, 3.0, 10.0, 40.0, math.inf]),
    how=st.sampled_from([Fact.EXITED, Fact.EXITED, Fact.BROKEN, Fact.SICK]),
    obeys=st.sampled_from([0.0, 2.0, 12.0, math.inf]),
    dies=st.sampled_from([0.0, 0.1, 15.0, 500.0]),
)
MEDDLING = st.builds(
    Meddling,
    at=TIMES,
    what=st.sampled_from(
        ["keep"] * 4 + ["unload", "cut", "retry", "reload"] * 2 + ["READY", "SICK", "IDLE", "EXITED", "BROKEN"]
    ),
    key=KEYS,
    keep_alive=st.sampled_from([0.0, 0.0, 7.0, math.inf]),
    load_timeout=st.sampled_from([1.5, 7.5, 60.0, 300.0]),
)

# What a script must have led to somewhere, or the test proves less than it seems to.
REACHED = {
    "grants",
    "grants at once",
    "uses after keep(0)",
    "waits for a leaving one",
    "waits without a promise",
    "evictions",
    "cut requests",
    "crashes",
    "sick",
    "hang-ups while waiting",
    "waits cut shorter",
    "kills of who was told before",
    "refusals by an older failure",
    "unloads while arriving",
    "BusyError",
    "LoadFailedError",
    "LoadTimeoutError",
    "want: failed > waiting",  # a failure long enough ago
    "want: ready > draining",  # evicted busy
    "want: ready > stopping",  # evicted idle
    "want: backoff > gone",  # evicted in the pause
    "tick: ready > stopping",  # keep-alive over
    "tick: backoff > gone",  # keep-alive over in the pause
    "tick: backoff > starting",
    "tick: starting > stopping",  # too slow
    "tick: draining > stopping",
    "release: ready > stopping",  # keep_alive 0
    "release: draining > stopping",
    "release: waiting > gone",  # a promise given up
    "keep: ready > stopping",
    "unload: ready > draining",
    "cut: draining > stopping",
    "retry: failed > gone",
    "EXITED: starting > backoff",
    "EXITED: starting > failed",
    "EXITED: ready > backoff",
    "EXITED: ready > failed",
    "EXITED: draining > gone",
    "EXITED: stopping > backoff",  # it was sick
    "EXITED: stopping > failed",  # it was too slow
    "BROKEN: starting > failed",
    "BROKEN: ready > failed",
    "SICK: ready > stopping",
    "SICK: draining > stopping",
}
REACHED_BY_CLOSE = {
    "ClosingError",
    "unloads while arriving",
    "close: waiting > gone",
    "close: starting > stopping",
    "close: ready > stopping",
    "close: ready > draining",
    "close: failed > gone",
}


def scripts(close_at: st.SearchStrategy[float]) -> st.SearchStrategy[Script]:
    return st.builds(
        Script,
        max_models=st.integers(1, 3),
        max_queue=st.integers(1, 12),
        keep_alive=st.sampled_from([0.0, 0.75, 10.0, 60.0, math.inf]),
        restart_budget=st.integers(0, 3),
        lag=st.sampled_from([0.0, 0.0, 0.25, 6.0]),
        asks=st.lists(ASKS, min_size=8, max_size=40).map(tuple),
        births=st.lists(st.one_of(GOOD, CRASHING, HOPELESS), min_size=1, max_size=8).map(tuple),
        meddling=st.lists(MEDDLING, min_size=6, max_size=20).map(tuple),
        close_at=close_at,
    )


# What chance reaches too rarely to rely on it.
RARE = (
    # A request between keep(0) and the stop.
    Script(asks=(one_client(0, A, 20), one_client(8, A, 5)), meddling=(Meddling(7, "keep", A, 0),)),
    # The keep-alive runs out in the pause after a crash.
    Script(keep_alive=1.25, asks=(one_client(0, A, 0),), births=(Birth(ready=1, turns=2),)),
    # Evicted in that pause.
    Script(max_models=1, asks=(one_client(0, A, 0), one_client(2.25, B, 0)), births=(Birth(ready=1, turns=2),)),
    # Unloaded, then unloaded now.
    Script(asks=(one_client(0, A, 90),), meddling=(Meddling(7, "unload", A), Meddling(8, "cut", A))),
    # Sick while draining.
    Script(
        asks=(one_client(0, A, 90),),
        births=(Birth(ready=1, turns=8, how=Fact.SICK),),
        meddling=(Meddling(7, "unload", A),),
    ),
    # Never ready.
    Script(asks=(one_client(0, A, 5),), births=(Birth(ready=math.inf),)),
)
RARE_AT_CLOSE = (
    # One waits for its place.
    Script(max_models=1, asks=(one_client(0, A, 90), one_client(8, B, 5)), close_at=9),
    # One is idle.
    Script(asks=(one_client(0, A, 1),), close_at=9),
)


def test_promises_are_kept() -> None:
    seen = play(World, scripts(close_at=NEVER), RARE, 500)
    assert {what for what in REACHED if not seen[what]} == set()


def test_close_ends_everything() -> None:
    seen = play(World, scripts(close_at=TIMES), RARE_AT_CLOSE, 200)
    assert {what for what in REACHED_BY_CLOSE if not seen[what]} == set()
