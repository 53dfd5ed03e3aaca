"""What a person sees of an installation: every step once."""

from __future__ import annotations

from hyperllamad.demo import Steps
from hyperllamad.packages import Progress


def test_a_step_that_reports_its_bytes_is_one_line() -> None:
    lines: list[str] = []
    say = Steps(lines.append)
    for step in (
        Progress("downloading", "a.whl"),
        Progress("downloading", "a.whl", 1, 9),
        Progress("downloading", "a.whl", 9, 9),
        Progress("downloading", "b.whl"),
        Progress("installing"),
    ):
        say(step)
    assert lines == ["  downloading: a.whl", "  downloading: b.whl", "  installing"]
