"""What the tests of bodies ask of engines, and what becomes of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from hyperllamad.core.models import Kind
from hyperllamad.engines import base
from tests.engines import samples

CHAT, COMPLETION, EMBED = Kind.CHAT, Kind.COMPLETION, Kind.EMBED
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "format", "schema": SCHEMA}}
JSON_OBJECT = {"type": "json_object"}
ALL = base.NAMES
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
TIME = {"type": "function", "function": {"name": "time"}}
NAMED = {"type": "function", "function": {"name": "time"}}


def body(engine: str, given: dict[str, Any], kind: Kind = CHAT, **settings: Any) -> dict[str, Any]:
    stated = samples.settings(engine, settings.pop("device", "cpu"), **settings)
    return base.load(engine).body(kind, given, samples.model_for(engine), stated)


def called(engine: str, given: dict[str, Any], kind: Kind = CHAT, **changes: Any) -> dict[str, Any]:
    model = dataclasses.replace(samples.caller_for(engine), **changes)
    return base.load(engine).body(kind, given, model, samples.settings(engine))
