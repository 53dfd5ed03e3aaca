"""docs/control.md says what the code says, and every command is there."""

from __future__ import annotations

import re
from pathlib import Path

from hyperllamactl import cli, document
from hyperllamactl.protocol.table import COMMANDS

PAGE = Path(__file__).parents[2] / "docs" / "control.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == document.page(), (
        "run: python -m hyperllamactl.document > docs/control.md"
    )


def test_every_command_has_a_heading_and_a_subcommand() -> None:
    headings = set(re.findall(r"^## ([a-z-]+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert headings == set(COMMANDS)
    leaves = cli.build_parser()[1]
    assert {kind: parser.prog for kind, parser in leaves.items()} == {
        kind: f"hyperllamactl {name.replace('-', ' ')}" for name, kind in COMMANDS.items()
    }


def test_every_field_that_needs_words_has_them() -> None:
    page = document.page()
    assert "| `until` | number or null | `null` | when a ready one is unloaded; null = never |" in page
    assert "| `instances` | array of [InstanceRow](#instancerow) | required |  |" in page
