"""The table in docs/reliability.md: one row for each thing that was shown, with what was counted and seen."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parent.parent.parent / "docs/reliability.md"
HEAD = "## What was run\n"
INTRO = """
Written by `make faults`; each row is the last run of its part. Engines are fake ones (`tests/fake_engine.py`: real
processes that speak the engines' HTTP, and show faults by switch) unless one is named.

| what | how often | holds | seen | when and where |
|---|---|---|---|---|
"""


class Row(NamedTuple):
    """`what` is the key: a later run replaces the row."""

    what: str
    count: str
    holds: bool
    seen: str

    def line(self, where: str) -> str:
        return f"| {self.what} | {self.count} | {'yes' if self.holds else '**no**'} | {self.seen} | {where} |\n"


def write(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Put the rows into the page, in place of those of the same name; the others stay."""
    text, _, table = page.read_text(encoding="utf-8").partition(HEAD)
    lines = [line for line in table.splitlines(keepends=True) if line.startswith("| ")]
    old = {line.split("|")[1].strip(): line for line in lines if not line.startswith("| what")}
    where = f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()}"
    new = {row.what: row.line(where) for row in rows}
    page.write_text(text.rstrip("\n") + "\n\n" + HEAD + INTRO + "".join((old | new).values()), encoding="utf-8")
