"""The OpenAPI document: it holds every route of the app and nothing else, every field, and is sound."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import schemathesis

from hyperllamad.config.load import load_config
from hyperllamad.front import doorkeeper, openapi
from hyperllamad.front.app import quart_app
from hyperllamad.front.openapi_fields import FIELDS
from hyperllamad.front.openapi_routes import ROUTES
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Answer, Asked, Whole

DOCUMENT: dict[str, Any] = json.loads(openapi.document("1.2.3"))
OPERATIONS = {(method.upper(), path): op for path, ops in DOCUMENT["paths"].items() for method, op in ops.items()}


def silent(_: Asked) -> Answer:
    return Whole(200, b"{}")


async def test_it_is_served_to_everybody(house: OpenHouse) -> None:
    async with house(silent) as h:
        reply = await h.client.get("/openapi.json")
        assert (reply.status, reply.header("content-type")) == (200, "application/json")
        assert reply.json() == DOCUMENT
        assert reply.json()["info"]["version"] == "1.2.3"


def test_every_route_of_the_app_is_in_it_and_nothing_else(tmp_path: Path) -> None:
    loaded = load_config(tmp_path, {"HOME": str(tmp_path)})
    app = quart_app(cast("Any", SimpleNamespace(library=None, version="1", keys=None, quotas={}, config=loaded)))
    served = {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
    assert served == set(ROUTES) == set(OPERATIONS)


def test_it_is_a_sound_document() -> None:
    assert schemathesis.openapi.from_dict(DOCUMENT).validate() is None
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(DOCUMENT)))
    assert used == set(DOCUMENT["components"]["schemas"]), "every schema is used, and every one that is used is there"


@pytest.mark.parametrize("key", [key for key, route in ROUTES.items() if route.asks], ids=" ".join)
def test_a_body_has_the_fields_that_are_read(key: tuple[str, str]) -> None:
    route = ROUTES[key]
    assert route.asks is not None
    struct, shape = route.asks
    asked = OPERATIONS[key]["requestBody"]["content"]["application/json"]["schema"]
    schema = DOCUMENT["components"]["schemas"][asked["$ref"].rpartition("/")[2]]
    assert set(schema["properties"]) == {name for name, _ in shape.names()}
    assert set(asked["required"]) == set(route.required) <= set(schema["properties"])
    assert struct.__name__ == type(shape(None, None)).__name__  # type: ignore[arg-type]
    assert schema["properties"].get("keep_alive", {"type": ["number", "string"]})["type"] == ["number", "string"]


def test_every_field_that_is_said_more_of_is_there() -> None:
    there = {
        f"{start}{field}"
        for name, schema in DOCUMENT["components"]["schemas"].items()
        for field in schema.get("properties", {})
        for start in ("", f"{name.rpartition('.')[2]}.", f"{name}.")
    }
    assert FIELDS.keys() <= there


def test_open_routes_are_those_the_door_lets_pass() -> None:
    assert {path for (_, path), route in ROUTES.items() if route.open} == doorkeeper.OPEN
    assert {path for (_, path), op in OPERATIONS.items() if op.get("security") == []} == doorkeeper.OPEN


def test_every_route_says_how_it_fails_in_the_words_of_its_api() -> None:
    for (_, path), operation in OPERATIONS.items():
        error = operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"]
        dialect = "Anthropic" if path.startswith("/v1/messages") else "OpenAI" if path.startswith("/v1") else "Ollama"
        assert error.endswith(f".{dialect}Error"), path
        assert all(response["description"] for response in operation["responses"].values())
