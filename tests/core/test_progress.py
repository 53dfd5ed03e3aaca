"""The verdict over a stuck engine: found in time when it is one, and never when it only takes long."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from hyperllamad.core.progress import NORMAL, Limits, Look, Progress

LIMITS = Limits()


class Scene:
    """An engine and somebody who looks at it once a second."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.progress = Progress(limits)
        self.at = 100.0
        self.pieces = 0
        self.progress.look(self.now())

    def now(self, *, unread: int = 0, expected: bool = True, stopped: bool = False, computing: bool = True) -> Look:
        return Look(self.at, self.pieces, expected, unread, stopped, computing)

    def quiet(self, seconds: float, step: float = 1.0, **look: bool | int) -> str:
        """No piece for so long; what is thought of it in the end."""
        doubt = ""
        for _ in range(round(seconds / step)):
            self.at += step
            doubt = self.progress.look(self.now(**look))  # type: ignore[arg-type]
        return doubt

    def piece(self) -> None:
        self.pieces += 1
        self.progress.look(self.now())

    def until(self, found: Callable[[], bool], most: float, **look: bool | int) -> float:
        """Seconds of quiet until that is so."""
        began = self.at
        while not found():
            assert self.at - began < most
            self.quiet(1.0, **look)
        return self.at - began


def test_pieces_are_all_that_counts() -> None:
    scene = Scene()
    for _ in range(1000):
        assert scene.quiet(3, computing=False) == ""
        scene.piece()
    assert not scene.progress.stuck


@pytest.mark.parametrize(("look", "words"), [({"stopped": True}, "stopped"), ({"computing": False}, "does anything")])
def test_one_that_stands_still_is_found_in_under_fifteen_seconds(look: dict[str, bool], words: str) -> None:
    scene = Scene()
    seconds = scene.until(lambda: scene.progress.stuck, 15, **look)
    assert words in scene.quiet(1, **look)
    assert seconds <= 11


def test_no_doubt_without_somebody_who_waits() -> None:
    scene = Scene()
    assert scene.quiet(10_000, step=10, expected=False, stopped=True, computing=False) == ""
    assert scene.progress.quiet == 0


def test_a_long_prompt_takes_its_time() -> None:
    """128,000 tokens at a rate never seen before, then at one that was."""
    scene = Scene()
    size = 512_000
    assert scene.quiet(9_000, unread=size) == ""
    scene.piece()
    assert scene.progress.slowest_byte == pytest.approx(9_000 / size)
    assert scene.quiet(70_000, step=2, unread=size) == ""
    assert scene.quiet(5_000, step=2, unread=size) != ""


def test_what_short_prompts_took_is_no_measure_for_a_long_one() -> None:
    """135 million parameters on a CPU: at 128,000 tokens attention is sixteen times the rest of the work."""
    scene = Scene()

    def seconds(size: int) -> float:
        return size * 2.5e-4 * (1 + size / 32_000)

    for _ in range(20):
        scene.quiet(seconds(20_000), unread=20_000)
        scene.piece()
    assert seconds(512_000) > LIMITS.busy + LIMITS.margin * 512_000 * seconds(20_000) / 20_000, "or nothing is shown"
    assert scene.quiet(seconds(512_000), step=2, unread=512_000) == ""
    assert scene.quiet(LIMITS.busy + 512_000 * LIMITS.reading, step=2, unread=512_000) != "", "it is not for ever"
    scene.piece()
    assert scene.progress.longest_prompt == 512_000


def test_a_fast_history_makes_it_impatient() -> None:
    scene = Scene()
    for _ in range(10):
        scene.quiet(2, unread=100_000)
        scene.piece()
    assert scene.until(lambda: scene.progress.stuck, 100, unread=100_000) <= 60 + 16 + 5


def test_a_loop_without_an_end_is_found_by_time_alone() -> None:
    scene = Scene()
    assert scene.quiet(59) == ""
    assert "longer than it has ever needed" in scene.quiet(1)
    assert not scene.progress.stuck
    scene.quiet(LIMITS.answer)
    assert scene.progress.stuck


def test_a_slow_engine_gets_more_time() -> None:
    scene = Scene()
    scene.quiet(30)
    scene.piece()
    assert scene.quiet(8 * 30 - 1) == ""
    assert scene.quiet(1) != ""


def test_one_bad_hour_is_forgotten() -> None:
    scene = Scene()
    scene.quiet(50)
    scene.piece()
    slow = scene.progress.allowed(0)
    for _ in range(300):
        scene.quiet(1)
        scene.piece()
    assert scene.progress.allowed(0) == LIMITS.busy < slow


def test_a_doubt_ends_when_it_computes_again() -> None:
    scene = Scene()
    assert scene.quiet(LIMITS.still + 3, computing=False) != ""
    assert scene.quiet(1, computing=True) == ""
    assert scene.quiet(LIMITS.still - 1, computing=False) == ""
    assert not scene.progress.stuck


def test_a_token_that_was_asked_for_starts_the_clocks_again() -> None:
    scene = Scene()
    assert scene.quiet(LIMITS.still + 3, computing=False) != ""
    scene.progress.answered()
    assert scene.quiet(LIMITS.still - 1, computing=False) == ""


@pytest.mark.parametrize("away", [60.0, 3600.0, 86_400.0])
def test_time_in_which_nobody_looked_does_not_count(away: float) -> None:
    """The machine slept, or our own process was stopped, just when the engine had been quiet for a while."""
    scene = Scene()
    scene.quiet(3, computing=False)
    scene.quiet(away, step=away, computing=False)
    assert not scene.progress.stuck
    assert scene.progress.quiet <= 3 + LIMITS.longest_step
    scene.piece()
    assert scene.progress.slowest_gap < 10, "nor is it learned"


def worlds(seed: int) -> Iterator[tuple[float, int]]:
    """(seconds until the next piece, bytes read meanwhile) of an engine that only takes long."""
    dice = random.Random(seed)
    speed = dice.uniform(1e-6, 0.01)  # seconds a byte
    for _ in range(60):
        if dice.random() < 0.3:
            size = dice.choice([500, 5_000, 50_000, 500_000])
            yield size * speed * dice.uniform(0.3, 1.8), size
        else:
            yield dice.expovariate(3) + dice.choice([0, 0, 0, 15]), 0  # a compilation in between


def test_no_false_alarm_in_any_world() -> None:
    looks = long = 0
    for seed in range(60):
        scene = Scene()
        for seconds, size in worlds(seed):
            steps = min(round(seconds), 6_000)
            for _ in range(steps):
                scene.at += 1.0
                assert scene.progress.look(scene.now(unread=size)) == "", (seed, seconds, size)
            looks += steps
            long += steps > 60
            scene.piece()
    assert looks > 50_000
    assert long > 100, "the dice have thrown long prompts"


def test_the_normal_limits_keep_the_promise() -> None:
    """Under 15 s: a look, the doubt, the token that does not come, and as much again of lateness."""
    assert NORMAL.still + NORMAL.answer + 2 < 15
    assert NORMAL.stopped + NORMAL.answer + 2 < 15
