"""The suite of faults in its short form: the same parts, a few times each; `make faults` does it at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import report, soak
from tests.faults.__main__ import PARTS, REALS, Extent
from tests.faults.report import Row

LATER = ("continued", "bad", "mutants", "soak", "patience")  # that have tests of their own, or take their time
SHORT = [name for name in PARTS if not name.startswith(LATER) and name not in REALS]
LIGHT = [
    name if name.startswith("kill-main") else pytest.param(name, marks=pytest.mark.long)
    for name in REALS
    if name.endswith("llama_cpp")
]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("part", SHORT)
def test_in_short(part: str) -> None:
    row = PARTS[part](Extent(short=True))
    assert row.holds, row


@pytest.mark.real
@pytest.mark.timeout(180)
@pytest.mark.parametrize("part", LIGHT)
def test_in_short_on_a_real_engine(part: str) -> None:
    row = PARTS[part](Extent(short=True))
    assert row.holds, row


def test_a_later_run_replaces_its_row_and_no_other(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\ntext\n")
    report.write([Row("a", "1", True, "x"), Row("b", "2", False, "y")], page)
    report.write([Row("a", "3", True, "z")], page)
    text = page.read_text()
    assert text.startswith("# Title\n\ntext\n\n## What was run\n")
    assert "| a | 3 | yes | z |" in text
    assert "| b | 2 | **no** | y |" in text
    assert "| a | 1 |" not in text
    assert text.count("| what |") == 1


def test_a_slope_is_told_from_noise() -> None:
    flat = [(float(x), 100.0 + (x * 7919) % 13) for x in range(400)]
    rising = [(x, y + 0.1 * x) for x, y in flat]
    _, low, high = soak.slope(flat)
    assert low <= 0 <= high
    middle, low, _ = soak.slope(rising)
    assert low > 0
    assert middle == pytest.approx(0.1, abs=0.01)
