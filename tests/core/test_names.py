"""Model names: what Ollama accepts, refuses and prints (spec section 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperllamad.core.errors import InvalidNameError
from hyperllamad.core.names import ModelName


@pytest.mark.parametrize(
    "text", ["tiny", "TINY", "tiny:LATEST", "library/tiny", "registry.ollama.ai/library/tiny:latest", " tiny "]
)
def test_one_model_by_many_names(text: str) -> None:
    assert ModelName.parse(text).key == ModelName.parse("tiny:latest").key


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("tiny", "tiny:latest"),
        ("someone/tinyns:q8", "someone/tinyns:q8"),
        ("hf.co/org/repo:Q4_K_M", "hf.co/org/repo:Q4_K_M"),
        ("http://host:80/ns/m", "host:80/ns/m:latest"),
        ("registry.ollama.ai/library/tiny", "tiny:latest"),
    ],
)
def test_the_short_form(text: str, short: str) -> None:
    assert ModelName.parse(text).short == short


@pytest.mark.parametrize(
    "text",
    ["", "tiny:", "/tiny", "tiny/", "a/b/c/d", "-x", "é", "bad name", "tiny@sha256:00", "x.y/z", "a" * 81, "a:b:c"],
)
def test_no_name(text: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        ModelName.parse(text)
    assert caught.value.name == text


@given(st.text(max_size=30))
def test_what_parses_prints_a_name_that_parses_to_the_same(text: str) -> None:
    try:
        name = ModelName.parse(text)
    except InvalidNameError:
        return
    assert ModelName.parse(name.short) == name
    assert ModelName.parse(name.full) == name
