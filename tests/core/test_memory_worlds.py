"""The fleet in random worlds where memory is counted: no device is promised twice, nobody is forgotten."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st

from hyperllamad.core.instance import Fact
from hyperllamad.core.models import Need, Terms
from tests.core.memory_world import MemoryWorld
from tests.core.plays import KEYS, NEVER, TIMES, one_client, play
from tests.core.script import Ask, Birth, Foreign, Meddling, Script
from tests.core.stage import A, B, C, D

pytestmark = pytest.mark.timeout(600)

ASKS = st.builds(
    Ask,
    at=TIMES,
    key=KEYS,
    use=st.sampled_from([0.0, 1.0, 5.0, 20.0, 90.0]),
    bears=st.sampled_from([math.inf] * 4 + [0.0, 3.0, 30.0]),
    keep_alive=st.sampled_from([None, None, None, 0.0, 7.0, math.inf]),
    client=st.sampled_from(["x", "x", "x", "y", "z"]),
    taken_in=st.sampled_from([0.0, 0.5, 0.5, 4.0, math.inf]),
)
BIRTHS = st.builds(
    Birth,
    ready=st.sampled_from([0.0, 1.0, 5.0, 5.0, 20.0, math.inf]),
    turns=st.sampled_from([math.inf] * 5 + [3.0, 30.0]),
    how=st.sampled_from([Fact.EXITED, Fact.BROKEN, Fact.SICK]),
    obeys=st.sampled_from([0.0, 1.0, 2.0, 12.0]),
    sleeps=st.sampled_from([0.5, 0.5, 8.0, math.inf]),
    wakes=st.sampled_from([0.5, 0.5, 3.0, math.inf]),
    keeps_well=st.sampled_from([True, True, True, False]),
    takes=st.sampled_from([1.0, 1.0, 0.9, 0.5, 1.2]),
    frees=st.sampled_from([0.0, 0.0, 0.5, 3.0, 20.0]),
)
NEEDS = st.builds(
    Need,
    weights=st.sampled_from([10, 30, 50, 80, 120]),
    kv_cache=st.sampled_from([0, 10, 40]),
    overhead=st.sampled_from([0, 5]),
    kv_least=st.sampled_from([None, None, 0, 5]),
    asleep=st.sampled_from([0, 2, 5]),
    gpus=st.sampled_from([(1,), (1,), (1, 2), (2,), (1, 2, 4)]),
    exclusive_start=st.booleans(),
)
TERMS = st.builds(
    Terms,
    need=NEEDS,
    gpu=st.just(True),
    parallel=st.sampled_from([0, 0, 1, 2, 2, 3, 5]),
    sleep_levels=st.sampled_from([(), (1,), (1,), (1, 2), (2,)]),
    pinned=st.sampled_from([False, False, False, False, True]),
    load_seconds=st.sampled_from([1.0, 10.0, 60.0]),
    wake_seconds=st.just(1.0),
    slows=st.booleans(),
    tells_begin=st.booleans(),
)
MEDDLING = st.builds(
    Meddling,
    at=TIMES,
    what=st.sampled_from(["keep", "unload", "cut", "retry", "SLEPT", "READY", "SICK", "EXITED"]),
    key=KEYS,
    keep_alive=st.sampled_from([0.0, 7.0, math.inf]),
)

REACHED = {
    "NoRoomError",
    "bad wakes",
    "decisions made again",
    "evictions of those asleep",
    "foreign use",
    "host memory that was waited for",
    "liars",
    "measurements",
    "memory that comes back late",
    "recorded: evicted",
    "recorded: failed",
    "recorded: placed",
    "recorded: refused",
    "recorded: restarted",
    "recorded: slept",
    "recorded: unloaded",
    "recorded: waits",
    "recorded: woken",
    "sleepers stopped for others",
    "sleeps",
    "slots kept for others",
    "starts in the dark",
    "starts into measured room",
    "turns between clients",
    "wakes",
    "BusyError",
    "LoadTimeoutError",
    "SLEPT: sleeping > asleep",
    "READY: waking > ready",
    "SICK: waking > stopping",
    "tick: sleeping > stopping",
    "tick: waking > stopping",
    "tick: asleep > stopping",
    "release: settling > sleeping",
}


def scripts(close_at: st.SearchStrategy[float]) -> st.SearchStrategy[Script]:
    return st.builds(
        Script,
        max_models=st.integers(1, 4),
        max_queue=st.integers(1, 6),
        keep_alive=st.sampled_from([0.0, 10.0, 60.0, math.inf]),
        restart_budget=st.integers(0, 2),
        lag=st.sampled_from([0.0, 0.0, 0.25]),
        asks=st.lists(ASKS, min_size=8, max_size=40).map(tuple),
        births=st.lists(BIRTHS, min_size=1, max_size=8).map(tuple),
        meddling=st.lists(MEDDLING, max_size=8).map(tuple),
        close_at=close_at,
        devices=st.sampled_from([(100,), (100,), (100, 100), (60, 120), (100, 100, 100, 100)]),
        terms=st.tuples(TERMS, TERMS, TERMS, TERMS),
        foreign=st.lists(st.builds(Foreign, at=TIMES, bytes=st.sampled_from([0, 0, 20, 60])), max_size=4).map(tuple),
        sleep_memory=st.sampled_from([0, 40, 100, 1000]),
        spread=st.booleans(),
        meter=st.sampled_from([0.1, 0.5, 3.0]),
    )


SLEEPER = Terms(Need(60, asleep=2), gpu=True, sleep_levels=(1,))
TURNS = (one_client(0, A, 1), one_client(20, B, 1), one_client(40, A, 1), one_client(60, B, 1), one_client(80, A, 1))
SWAPS = Script(asks=TURNS, devices=(100,), terms=(SLEEPER,) * 4, sleep_memory=200, keep_alive=math.inf)
THIRD = Script(
    **{**vars(SWAPS), "asks": (one_client(0, A, 1), one_client(20, B, 1), one_client(40, C, 1)), "sleep_memory": 60}
)
# What chance reaches too rarely to rely on it.
RARE = (
    SWAPS,
    Script(**{**vars(SWAPS), "births": (Birth(wakes=math.inf),)}),
    Script(**{**vars(SWAPS), "births": (Birth(sleeps=math.inf),)}),
    Script(**{**vars(SWAPS), "births": (Birth(keeps_well=False),)}),
    Script(**{**vars(SWAPS), "keep_alive": 25.0}),
    # There is host memory for one of two that could sleep; the second one waits while the first one is stopped.
    THIRD,
    Script(**{**vars(THIRD), "asks": (*THIRD.asks, one_client(40.5, D, 1)), "births": (Birth(obeys=2.0),)}),
    # Somebody else takes memory between the measurement and a start.
    Script(
        **{
            **vars(SWAPS),
            "asks": (one_client(0, A, 1), one_client(1, B, 1)),
            "devices": (200,),
            "foreign": (Foreign(0.5, 30),),
        }
    ),
    Script(**{**vars(SWAPS), "asks": (one_client(0, A, 60), one_client(20, B, 1), one_client(90, A, 1))}),
)


def test_no_memory_is_promised_twice_and_nobody_is_forgotten() -> None:
    seen = play(MemoryWorld, scripts(close_at=NEVER), RARE, 400)
    assert {what for what in REACHED if not seen[what]} == set()


def test_close_ends_everything_that_sleeps_too() -> None:
    seen = play(MemoryWorld, scripts(close_at=TIMES), (Script(**{**vars(SWAPS), "close_at": 70.0}),), 100)
    assert seen["close: asleep > stopping"]


# Everybody can sleep, and there is host memory for one or two of four.
FULL_OF_SLEEP = st.builds(
    Script,
    max_models=st.integers(2, 4),
    keep_alive=st.just(math.inf),
    asks=st.lists(
        st.builds(
            one_client, st.integers(0, 300).map(float), st.sampled_from([A, B, C, D]), st.sampled_from([1.0, 5.0])
        ),
        min_size=12,
        max_size=30,
    ).map(tuple),
    births=st.lists(
        st.builds(Birth, ready=st.just(1.0), obeys=st.sampled_from([0.5, 3.0, 12.0]), sleeps=st.just(0.5)),
        min_size=1,
        max_size=4,
    ).map(tuple),
    meddling=st.lists(st.builds(Meddling, at=TIMES, what=st.sampled_from(["unload", "cut"]), key=KEYS), max_size=3).map(
        tuple
    ),
    devices=st.sampled_from([(100,), (140,), (100, 100)]),
    terms=st.tuples(
        *[
            st.builds(
                Terms,
                need=st.builds(Need, weights=st.sampled_from([30, 60, 80]), asleep=st.just(2)),
                gpu=st.just(True),
                sleep_levels=st.just((1,)),
                load_seconds=st.sampled_from([5.0, 30.0]),
            )
        ]
        * 4
    ),
    sleep_memory=st.sampled_from([60, 80, 100, 140]),
)


# Two models that tell what they have taken in, and clients who ask them for more than that again and again.
CROWDED = st.builds(
    Script,
    max_queue=st.just(40),
    keep_alive=st.sampled_from([0.0, math.inf]),
    asks=st.lists(
        st.builds(
            Ask,
            at=st.integers(0, 80).map(float),
            key=st.sampled_from([A, A, A, B]),
            use=st.sampled_from([1.0, 5.0, 30.0]),
            bears=st.sampled_from([math.inf] * 4 + [3.0]),
            keep_alive=st.none(),
            client=st.sampled_from(["x", "x", "x", "y", "z"]),
            taken_in=st.sampled_from([0.0, 0.5, 0.5, 4.0, math.inf]),
        ),
        min_size=12,
        max_size=40,
    ).map(tuple),
    births=st.lists(
        st.builds(Birth, ready=st.just(1.0), turns=st.sampled_from([math.inf, math.inf, 30.0])), min_size=1, max_size=3
    ).map(tuple),
    meddling=st.lists(st.builds(Meddling, at=TIMES, what=st.just("cut"), key=KEYS), max_size=2).map(tuple),
    devices=st.sampled_from([(60,), (100,)]),
    terms=st.tuples(
        *[
            st.builds(
                Terms,
                need=st.just(Need(50)),
                gpu=st.just(True),
                parallel=st.sampled_from([3, 5, 32]),
                load_seconds=st.just(1.0),
                slows=st.booleans(),
                tells_begin=st.sampled_from([True, True, False]),
            )
        ]
        * 4
    ),
)


def test_nobody_takes_more_than_he_may_beside_others_and_nobody_is_left_behind() -> None:
    seen = play(MemoryWorld, CROWDED, (), 500)
    assert seen["requests kept until others are taken in"] > 100
    assert seen["grants after another was taken in"] > 100
    assert seen["slots kept for one who asks for little"] > 100
    assert not seen["BusyError"]


def test_host_memory_is_never_promised_twice_while_sleepers_make_room_for_each_other() -> None:
    seen = play(MemoryWorld, FULL_OF_SLEEP, (), 100)
    assert seen["sleepers stopped for others"] > 10
    assert seen["wakes"] > 100
    assert not seen["LoadTimeoutError"]


# Nothing goes wrong, each model fits by itself, and what is asked for can be done in a request's time.
GOOD_WORLD = st.builds(
    Script,
    max_models=st.integers(1, 4),
    max_queue=st.just(40),
    keep_alive=st.sampled_from([0.0, 10.0, math.inf]),
    asks=st.lists(st.builds(one_client, TIMES, KEYS, st.sampled_from([0.0, 1.0])), min_size=12, max_size=40).map(tuple),
    births=st.just((Birth(ready=1.0, obeys=1.0, sleeps=0.5, wakes=0.5),)),
    devices=st.sampled_from([(100,), (60, 120), (100, 100)]),
    terms=st.tuples(
        *[
            st.builds(
                Terms,
                need=st.builds(Need, weights=st.sampled_from([10, 50, 90]), asleep=st.sampled_from([0, 2])),
                gpu=st.just(True),
                parallel=st.sampled_from([0, 1, 4]),
                sleep_levels=st.sampled_from([(), (1,)]),
                load_seconds=st.just(1.0),
            )
        ]
        * 4
    ),
    sleep_memory=st.sampled_from([0, 60, 200]),
)


def test_where_nothing_goes_wrong_nobody_starves() -> None:
    """Whatever others ask for: each request is granted, and none is refused or comes to its deadline."""
    asked = 0

    class Good(MemoryWorld):
        def check_end(self) -> None:
            nonlocal asked
            super().check_end()
            asked += len(self.script.asks)
            assert self.seen["grants"] == len(self.script.asks)

    seen = play(Good, GOOD_WORLD, (), 100)
    assert seen["grants"] == asked > 500
    assert all(seen[what] for what in ("recorded: evicted", "recorded: slept", "wakes"))


@pytest.mark.parametrize("lag", [0.0, 1.0, 3.0])
def test_two_that_take_turns_sleep_and_wake_and_are_never_started_twice(lag: float) -> None:
    """Also where a driver takes a moment to have the memory back: that is waited for, and nobody is ended for it."""
    world = MemoryWorld(Script(**{**vars(SWAPS), "births": (Birth(lags=lag),)}))
    world.play()
    assert (world._born, world.seen["wakes"], world.seen["grants"]) == (2, 3, 5)
    assert D not in world.states
    assert C not in world.states
