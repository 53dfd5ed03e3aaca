"""docs/architecture.md names files that are there: a reader goes from the page to the code."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()
FILES = [
    f"/{path.relative_to(ROOT)}"
    for path in chain.from_iterable((ROOT / room).rglob("*.*") for room in ("hyperllamad", "hyperllamactl", "etc"))
]


def expanded(name: str) -> list[str]:
    """`engines/{vllm,max}.py` as two."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
    return [f"{found[1]}{one}{found[3]}" for one in found[2].split(",")] if found else [name]


def test_every_file_it_names_is_there() -> None:
    named = {one for name in re.findall(r"[\w/{},]+\.(?:py|toml)\b", PAGE) for one in expanded(name)}
    assert len(named) > 40
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in FILES)] == []


def test_what_it_says_is_in_a_file_is_in_it() -> None:
    said = re.findall(r"`(\w+)` in\s+`([\w/]+\.py)`", PAGE)
    assert said
    for name, file in said:
        texts = [(ROOT / path[1:]).read_text() for path in FILES if path.endswith(f"/{file}")]
        assert any(re.search(rf"(class|def) {name}\b|^{name}\b", text, re.MULTILINE) for text in texts), (name, file)
