"""What the phases of a load took."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperllamad.supervision.phases import Phases
from tests.supervision import fake


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_phase_is_timed_and_one_that_comes_again_is_added_to() -> None:
    clock = Clock()
    phases = Phases("starting", clock)
    for now, phase, moved in ((103.0, "weights", True), (104.0, "weights", False), (105.0, "starting", True)):
        clock.now = now
        assert phases.enter(phase) is moved
    clock.now = 106.0
    assert (phases.current, phases.took) == ("starting", {"starting": 4.0, "weights": 2.0})
    phases.end()
    clock.now = 200.0
    assert not phases.enter("weights")
    assert (phases.current, phases.took) == ("", {"starting": 4.0, "weights": 2.0})
    assert str(phases) == "starting 4.0 s, weights 2.0 s"


async def test_a_loaded_model_shows_them(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)
    async with fake.supervised(runtime) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m", "--slow", "0.9"))
        await lease.granted()
        row = fake.row(supervisor, "m")
        assert row is not None
        assert list(row.phases) == ["starting", "weights", "compiling", "warming"]
        assert all(row.phases[phase] >= 0.05 for phase in ("weights", "compiling", "warming"))
        assert sum(row.phases.values()) >= 0.9
        lease.release()
