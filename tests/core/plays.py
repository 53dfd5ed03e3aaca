"""Random worlds: what scripts are drawn from, and the playing of them until one breaks a promise."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hyperllamad.core.models import Key
from tests.core.script import Ask, Script
from tests.core.stage import A, B, C, D

KEYS = st.sampled_from([A, A, B, C, D])
TIMES = st.integers(0, 150).map(float)
NEVER = st.just(math.inf)


class Stage(Protocol):
    """A world, and what was seen in it."""

    seen: Counter[str]

    def play(self) -> None: ...


def one_client(at: float, key: Key, use: float) -> Ask:
    return Ask(at, key, use, bears=math.inf, keep_alive=None)


def play(
    world: Callable[[Script], Stage], strategy: st.SearchStrategy[Script], always: Iterable[Script], examples: int
) -> Counter[str]:
    """Play scripts, `always` among them, until one breaks a promise; returns what was seen."""
    seen: Counter[str] = Counter()

    def run(script: Script) -> None:
        stage = world(script)
        stage.play()
        seen.update(stage.seen)

    for script in always:
        run = example(script)(run)
    settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])(given(strategy)(run))()
    return seen
