"""schemathesis asks the server what the document says may be asked, and what may not; answers are held against it, too.

Six requests a route by default, FUZZ / 100 of them with `make fuzz`.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.from_thread
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from hyperllamad.front import openapi
from hyperllamad.front.openapi_routes import ROUTES
from tests.front.conftest import House, open_house, wait_until
from tests.front.test_mutations import ENGINE, MODELS, engine, store_of
from tests.store import hub as hub_module

EXAMPLES = int(os.environ.get("FUZZ", "600")) // 100
SEED = os.environ.get("FUZZ_SEED", "hyperllama")
PATIENCE = 30.0  # seconds for one answer
DOCUMENT: dict[str, Any] = json.loads(openapi.document("1.2.3"))
MEANT = {"embed": "me", "rerank": "me", "copy": "here", "create": "here", "push": "here"}  # else "mt"
THEIRS = ("/api/chat", "/api/generate", "/api/embed", "/api/pull", "/api/create")  # where Ollama answers 500, too


def with_models(path: str) -> dict[str, Any]:
    """The document, but for names of models that are there: hardly anybody would guess one."""
    document = copy.deepcopy(DOCUMENT)
    there = next((name for part, name in MEANT.items() if part in path), "mt")
    for schema in document["components"]["schemas"].values():
        for name in {"model", "source", "from"} & schema.get("properties", {}).keys():
            schema["properties"][name] = {"enum": [there, "none"]}
        if "destination" in schema.get("properties", {}):
            schema["properties"]["destination"] = {"enum": ["copied", "none", ""]}
    return document


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, anyio.from_thread.BlockingPortal]]:
    """The front on a loopback port, in a thread of its own: schemathesis does not wait for loops."""
    where, held = tmp_path_factory.mktemp("house"), AsyncExitStack()
    patch = pytest.MonkeyPatch()
    with hub_module.serve() as hub, anyio.from_thread.start_blocking_portal("asyncio") as portal:
        for name, value in (("HF_ENDPOINT", hub.url), ("HF_HOME", str(where / "hf")), ("NO_PROXY", "127.0.0.1")):
            patch.setenv(name, value)
        opened = open_house(where, engine, engine=ENGINE, store=store_of(where), models=MODELS, tcp=True)
        house = portal.call(held.enter_async_context, opened)
        yield house, portal
        portal.call(held.aclose)
        patch.undo()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("key", ROUTES, ids=" ".join)
def test_asked_as_the_document_says(
    served: tuple[House, anyio.from_thread.BlockingPortal], key: tuple[str, str]
) -> None:
    house, portal = served
    method, path = key
    operation = schemathesis.openapi.from_dict(with_models(path))[path][method]
    cases = [operation.as_strategy(GenerationMode.POSITIVE)]
    if ROUTES[key].asks is not None:
        cases.append(operation.as_strategy(GenerationMode.NEGATIVE))
    seen = Counter[int]()

    @seed(random.Random(f"{SEED} {key}").getrandbits(32))
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )  # fmt: skip
    @given(st.one_of(cases))
    def ask(case: schemathesis.Case) -> None:
        reply = case.call(base_url=f"http://127.0.0.1:{house.port}", timeout=PATIENCE)
        seen[reply.status_code] += 1
        check(key, reply.status_code, reply.headers["content-type"][0] if reply.content else "", reply.content)
        portal.call(wait_until, lambda: house.supervisor.open == 0, PATIENCE)

    ask()
    print(f"{method} {path}: {dict(sorted(seen.items()))}")
    assert seen
    if "FUZZ" in os.environ and ROUTES[key].asks is not None and path != "/api/create":
        assert seen[200] > 0, "some of what the document says may be asked is answered"


def check(key: tuple[str, str], status: int, content_type: str, body: bytes) -> None:
    """The status is in the document, and so is the body."""
    said = f"{key}: {status} {content_type} {body[:500]!r}"
    operation = DOCUMENT["paths"][key[1]][key[0].lower()]
    if not (status == 404 and body == b"404 page not found"):  # a path parameter that leads to no route
        assert str(status) in operation["responses"], said
    assert status < 500 or key[1] in THEIRS or body.startswith(b'{"error":"push is not'), said
    kind = content_type.partition(";")[0]
    schema = operation["responses"].get(str(status), {}).get("content", {}).get(kind, {}).get("schema")
    if schema is None or not body:
        return
    validator = jsonschema_rs.validator_for(schema | {"components": DOCUMENT["components"]})
    for document in parts(kind, body):
        if not (kind == "application/x-ndjson" and document.keys() == {"error"}):
            validator.validate(document)


def parts(kind: str, body: bytes) -> list[Any]:
    if kind == "application/x-ndjson":
        return [json.loads(line) for line in body.splitlines()]
    if kind == "text/event-stream":
        events = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
        return [json.loads(event) for event in events if event != b"[DONE]"]
    return [json.loads(body)]
