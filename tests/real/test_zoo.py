"""Ten models in memory for four, in short; `make zoo` plays a thousand operations."""

from __future__ import annotations

import pytest

from tests import zoo

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


def test_everything_is_answered_and_memory_suffices() -> None:
    report = zoo.zoo(60)
    assert report.wrong == [], report
    assert report.outcomes.total() == 60
    assert report.decisions["evicted"] > 3, report
    assert report.decisions["refused"] == 0, report
    assert 0 < report.most <= zoo.MEMORY * zoo.MIB, report
