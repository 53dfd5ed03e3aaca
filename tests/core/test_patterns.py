"""Classes are matched by keywords, everywhere: a position costs a string that Python keeps (see core/actions.py)."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent / "hyperllamad"


def test_no_class_is_matched_by_position() -> None:
    seen, found = 0, []
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.MatchClass):
                seen += 1
                if node.patterns:
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert seen
    assert not found
