"""When a time of the fleet is: the same at every look, and right again after somebody has set the system's clock."""

from __future__ import annotations

import time

import pytest

from hyperllamad.supervision.rows import Calendar


def test_it_says_the_same_whenever_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calendar = Calendar()
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    first = calendar.offset(50.0)
    assert first == 999_950.0
    monkeypatch.setattr(time, "time", lambda: 1_000_010.02)  # the two clocks are never read at once
    assert calendar.offset(60.0) == first


def test_a_clock_that_was_set_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    calendar = Calendar()
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    calendar.offset(50.0)
    monkeypatch.setattr(time, "time", lambda: 1_003_600.0)
    assert calendar.offset(50.0) == 1_003_550.0
