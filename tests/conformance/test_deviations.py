"""The list of deviations is sound, is told to users, and can fail."""

from __future__ import annotations

from pathlib import Path

from tests.conformance import deviations, facts
from tests.conformance.deviations import Deviation, unexpected
from tests.conformance.facts import Difference

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"


def test_every_deviation_is_of_a_recorded_case_and_in_the_document() -> None:
    cases = {case["id"] for case in facts.cases()}
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text.partition("## Recorded cases that differ")[2].partition("\n## ")[0]
    for item in deviations.listed():
        assert item.case in cases
        assert set(item.on) <= set(deviations.ENGINES)
        assert item.reason
        assert f"`{item.case}`" in section, f"{DOCUMENT.name} does not tell of {item.case}"


def test_a_difference_must_be_listed_for_the_engine_it_is_found_on() -> None:
    listed = Deviation(case="a", at=("body.1.x",), on=("vllm",), reason="because")
    seen = {"a": [Difference("body.1.x.y", "missing")]}
    assert unexpected("vllm", seen, [listed]) == []
    assert unexpected("max", seen, [listed]) == ["a: body.1.x.y: missing"]
    assert unexpected("vllm", {"a": [*seen["a"], Difference("body.1.xy", "missing")]}, [listed]) == [
        "a: body.1.xy: missing"
    ]


def test_a_deviation_that_is_gone_must_be_taken_off_the_list() -> None:
    listed = Deviation(case="a", at=("body.1.x",), reason="because")
    (line,) = unexpected("vllm", {"a": []}, [listed])
    assert "take it off the list" in line
    assert unexpected("vllm", {"a": []}, [Deviation(case="a", at=("body.1.x",), reason="because", varies=True)]) == []
    assert unexpected("vllm", {"b": []}, [listed]) == [], "a case that was not run says nothing"


def test_the_comparison_finds_differences() -> None:
    one = facts.facts(200, {"content-type": "application/json"}, b'{"a":1,"done":true}')
    assert list(facts.differences(one, one)) == []
    other = facts.facts(404, {"content-type": "application/json"}, b'{"a":"x","done":false,"b":null}\n')
    found = {difference.at for difference in facts.differences(one, other)}
    assert found == {"status", "body.1.a", "body.1.done", "body.1.b", "body.2.ends_in_newline"}
    assert facts.compare({"id": "x", "ignore": ["body.1.a"]}, one, dict(one)) == []
