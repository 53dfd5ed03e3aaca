"""docs/compatibility.md has a row for every route, every field that is read and every option; links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hyperllamad.front import ollama_options
from hyperllamad.front.openapi_routes import ROUTES

PAGE = (Path(__file__).parents[2] / "docs/compatibility.md").read_text()
COMMON = {"model", "name", "stream", "keep_alive"}  # said once for all routes
HEADINGS = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
VERDICTS = {"same", "better", "refused", "ignored", ""}


def section(route: str) -> str:
    """The part of the page about a route, or about another heading."""
    heading = next((heading for heading in HEADINGS if route in heading.split(", ")), None)
    assert heading, f"no heading for {route}"
    return PAGE.partition(f"### {heading}\n")[2].partition("\n##")[0]


@pytest.mark.parametrize("key", ROUTES, ids=" ".join)
def test_every_route_and_field_is_told_of(key: tuple[str, str]) -> None:
    text, asks = section(" ".join(key)), ROUTES[key].asks
    assert "|---|---|" in text, "a table, not only a heading"
    if asks is None or key[1] in {"/api/pull", "/api/push"}:
        return
    names = {name for name, _ in asks[1].names()} - COMMON
    if key[1] == "/v1/messages/count_tokens":
        text += section("POST /v1/messages")
    assert [name for name in sorted(names) if f"`{name}" not in text] == []


def test_every_option_is_told_of() -> None:
    text = section("Options")
    assert [name for name in ollama_options._TYPES if f"`{name}`" not in text] == []


def test_no_heading_is_left_of_a_route_that_went() -> None:
    told = {part for heading in HEADINGS for part in heading.split(", ") if re.match(r"[A-Z]+ /", part)}
    assert told == {" ".join(key) for key in ROUTES}


def test_every_row_has_a_verdict() -> None:
    rows = re.findall(r"^\| (?!What|Field|Option|Client|Case|Route)(.+?) \| (\w*) ?\|", PAGE, re.MULTILINE)
    assert len(rows) > 150
    assert {verdict for _, verdict in rows if not verdict.startswith("---")} <= VERDICTS, rows
