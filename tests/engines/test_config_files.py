"""The packaged engines.d: every key there is, with its default."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from hyperllamad.config.tables import EngineTable
from hyperllamad.engines import base

DIRECTORY = Path(__file__).parents[2] / "etc" / "hyperllama" / "engines.d"


def test_there_is_one_for_each_engine() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.toml")} == set(base.NAMES)


@pytest.mark.parametrize("name", base.NAMES)
def test_what_it_shows_are_the_defaults(name: str) -> None:
    text = (DIRECTORY / f"{name}.toml").read_text()
    assert tomllib.loads(text) == {}
    shown = tomllib.loads(re.sub(r"(?m)^#([a-z_]+ = )", r"\1", text))
    assert set(shown) == set(EngineTable.__struct_fields__)
    assert msgspec.convert(shown, EngineTable) == EngineTable()


@pytest.mark.parametrize("name", base.NAMES)
def test_it_names_the_versions_of_this_release(name: str) -> None:
    engine = base.load(name)
    text = (DIRECTORY / f"{name}.toml").read_text()
    for recipe in engine.variants.values():
        assert (recipe.version or engine.version) in text
