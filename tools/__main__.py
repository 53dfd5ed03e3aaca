"""Writes packaging/man, packaging/completions, packaging/rpm/bundled.inc and docs/choosing.md: `python -m tools`.

tests/packaging/test_generated.py fails when one of them falls behind.
"""

from __future__ import annotations

from pathlib import Path

from tools import choosing, completions, manual, vendor

ROOT = Path(__file__).parents[1] / "packaging"


def files() -> dict[Path, str]:
    """Every generated file with what belongs into it."""
    man = {ROOT / "man" / name: text for name, text in manual.pages().items()}
    shells = {ROOT / "completions" / name: text for name, text in completions.files().items()}
    docs = {ROOT.parent / "docs" / "choosing.md": choosing.page()}
    return {**man, **shells, **docs, ROOT / "rpm" / "bundled.inc": vendor.provides()}


def main() -> None:
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
