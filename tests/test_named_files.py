"""Files that docs/architecture.md and the code itself name are there: a reader goes from one to the other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()
# Of the tests only those near the top: below lie other people's packages.
PLACES = (
    "hyperllamad/**/*.py",
    "hyperllamactl/**/*.py",
    "etc/**/*.toml",
    "tests/*.py",
    "tests/*/*.py",
    "tests/*/*/*.py",
)
FILES = [f"/{path.relative_to(ROOT)}" for place in PLACES for path in ROOT.glob(place)]
ROOMS = "store|front|core|control|supervision|engines|config|hyperllamactl|hyperllamad|tests"


def expanded(name: str) -> list[str]:
    """`engines/{vllm,max}.py` as two."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
    return [f"{found[1]}{one}{found[3]}" for one in found[2].split(",")] if found else [name]


def test_every_file_it_names_is_there() -> None:
    named = {one for name in re.findall(r"[\w/{},]+\.(?:py|toml)\b", PAGE) for one in expanded(name)}
    assert len(named) > 40
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in FILES)] == []


def test_every_file_that_the_code_names_is_there() -> None:
    named = [
        (path, name)
        for path in FILES
        if path.endswith(".py") and not path.startswith("/tests/")
        for name in re.findall(rf"(?<![\w/])(?:{ROOMS})(?:/[a-z_]+)+\.py\b", (ROOT / path[1:]).read_text())
    ]
    assert len(named) > 30
    assert [(path, name) for path, name in named if not any(it.endswith(f"/{name}") for it in FILES)] == []


def test_what_it_says_is_in_a_file_is_in_it() -> None:
    said = re.findall(r"`(\w+)` in\s+`([\w/]+\.py)`", PAGE)
    assert said
    for name, file in said:
        texts = [(ROOT / path[1:]).read_text() for path in FILES if path.endswith(f"/{file}")]
        assert any(re.search(rf"(class|def) {name}\b|^{name}\b", text, re.MULTILINE) for text in texts), (name, file)
