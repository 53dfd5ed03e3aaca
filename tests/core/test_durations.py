"""Go durations and keep_alive values, in Ollama's words (spec section 3.1)."""

from __future__ import annotations

import pytest

from hyperllamad.core import durations
from hyperllamad.core.errors import BadRequestError

FOREVER = durations.FOREVER


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), (0, 0), (0.5, 0.5), (300, 300), (-1, FOREVER), ("0", 0), ("0s", 0), ("1h30m", 5400),
        ("1.5h", 5400), ("-1m", FOREVER), ("300ms", 0.3), ("+5s", 5), (".5s", 0.5), ("1m0.5s", 60.5),
        (1e300, FOREVER), (10**400, FOREVER), (-(10**400), FOREVER), (9e9, 9e9), ("2500000h", 9e9),
    ],
)  # fmt: skip
def test_keep_alive_values(value: object, seconds: float | None) -> None:
    assert durations.keep_alive(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("abc", 'time: invalid duration "abc"'),
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1s x", 'time: unknown unit "s x" in duration "1s x"'),
        ("2600000h", 'time: invalid duration "2600000h"'),
        ("1e400s", 'time: unknown unit "e" in duration "1e400s"'),
        (True, "Unsupported type: 'bool'"),
        ({}, "Unsupported type: 'map[string]interface {}'"),
        ([], "Unsupported type: '[]interface {}'"),
    ],
)
def test_keep_alive_refusals(value: object, says: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        durations.keep_alive(value)
    assert caught.value.message == says


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0.2s"), (270, "4m30s"), (7200, "2h"), (3601, "1h1s"), (FOREVER, "forever")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert durations.show(seconds) == text
