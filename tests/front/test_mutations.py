"""Every POST route under spoilt bodies, with API keys and without: no 5xx of ours, no hang, no lease left.

A few hundred by default and 20,000 with `make fuzz` (FUZZ=20000), always the same ones for a FUZZ_SEED.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from hyperllamad.config.load import load_config
from hyperllamad.core.models import Capability, Kind, Model, Settings
from hyperllamad.engines import base
from hyperllamad.front import relay
from hyperllamad.front.openapi_routes import ROUTES
from hyperllamad.store.library import Library
from hyperllamad.store.shortnames import ShortNames
from tests.front import fake_supervisor as fakes
from tests.front.conftest import House, OpenHouse, Store, wait_until
from tests.front.http_client import Reply
from tests.front.mutations import REQUESTS, spoilt
from tests.front.scripted_engine import Answer, Asked, Stream, Whole, short_chat
from tests.front.test_door import ring
from tests.store import hub as hub_module
from tests.store.files import small_gguf

COUNT = int(os.environ.get("FUZZ", "0")) or 600  # over all routes
SEED = os.environ.get("FUZZ_SEED", "hyperllama")
PATIENCE = 20.0  # seconds for one answer, on a machine that does other things as well
MODELS = (
    fakes.model("mt", Capability.TOOLS, Capability.VISION),
    fakes.model("me", capabilities=frozenset({Capability.EMBEDDING})),
)
KEYS = '[[key]]\nname = "a"\nkey = "good"\n'
SLOW = {"/api/pull"}  # it asks a hub
SHOWN = ({"x-api-key": "good"}, {"Authorization": "Bearer good"}, {"x-api-key": "bad"}, {}, {"Authorization": "\xff"})

# Where Ollama's own answer is 500, or a failure is not ours: (path, what the error says).
THEIRS = (
    ("/api/", 'option "'),
    ("/api/", "invalid format: "),
    ("/api/generate", "template error"),
    ("/api/pull", ""),  # whatever keeps a model from being fetched
    ("/api/create", "pull model manifest: "),  # of a model that is not here: Ollama would fetch it
)


def engine(asked: Asked) -> Answer:
    if asked.path == "/v1/embeddings":
        items = ",".join(f'{{"index":{i},"embedding":[1,2]}}' for i in range(len(asked.body["input"])))
        return Whole(200, f'{{"data":[{items}]}}'.encode())
    if asked.path in {"/tokenize", "/detokenize"}:
        return Whole(200, b'{"tokens":[1],"content":"x"}')
    if asked.path == "/apply-template":
        return Whole(200, b'{"prompt":"x"}')
    return Stream(short_chat("a"))


class Mended(fakes.FakeEngine):
    """Bodies go through the real engines' repairs, each in turn."""

    def __init__(self) -> None:
        super().__init__(tokenize="/tokenize", detokenize="/detokenize", apply_template="/apply-template")
        self._turn = itertools.cycle(base.load(name) for name in base.NAMES)

    def body(self, kind: Kind, body: dict[str, Any], model: Model, settings: Settings) -> dict[str, Any]:
        return next(self._turn).body(kind, body, model, settings)


ENGINE = Mended()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(relay, "DEATH_KNOWN", 0.01)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with hub_module.serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield


def store_of(where: Path) -> Store:
    """One model on a disk, for the routes that change what is there; those that run models see MODELS."""
    loaded = load_config(where, environ={"HOME": str(where)})
    models = loaded.paths.models / "here"
    models.mkdir(parents=True)
    (models / "any.gguf").write_bytes(small_gguf())
    return Store(fakes.FakeCatalog(*MODELS), Library(loaded, ShortNames(())))


def test_every_post_route_is_tried() -> None:
    posts = {path for (method, path), route in ROUTES.items() if method == "POST" and not route.uploads}
    assert posts == set(REQUESTS)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", REQUESTS)
async def test_spoilt_bodies(house: OpenHouse, tmp_path: Path, path: str) -> None:
    rng, seen, began = random.Random(f"{SEED} {path}"), Counter[int](), time.monotonic()
    count = -(-COUNT // (2 * len(REQUESTS)))
    if path in SLOW and "FUZZ" not in os.environ:
        count = 3
    models = MODELS[::-1] if REQUESTS[path].get("model") == "me" else MODELS  # the first one is what runs
    for keyed in (False, True):
        where = tmp_path / f"keyed-{keyed}"
        where.mkdir()
        keys = ring(where / "keys", KEYS) if keyed else None
        async with house(engine, engine=ENGINE, store=store_of(where), keys=keys, models=models) as h:
            for _ in range(count):
                body = spoilt(REQUESTS[path], rng)
                headers = rng.choice(SHOWN) if keyed else {}
                reply = await answer(h, path, body, headers)
                seen[reply.status] += 1
                check(path, body, reply, refused=keyed and "good" not in "".join(headers.values()))
    print(f"{path}: {sum(seen.values())} bodies, {dict(sorted(seen.items()))}, {time.monotonic() - began:.1f} s")
    refused = {"/api/me": 401, "/api/signout": 401}
    outcomes = {200, 400} if path not in refused and "experimental" not in path else {refused.get(path, 403)}
    assert path in SLOW or outcomes | {401} <= seen.keys(), "some get in, some are wrong, some have no key"


async def answer(h: House, path: str, body: bytes, headers: dict[str, str]) -> Reply:
    """The reply, and then nobody holds anything; fails when either takes long."""
    try:
        with anyio.fail_after(PATIENCE):
            reply = await h.client.post(path, raw=body, headers=headers)
            await wait_until(lambda: h.supervisor.open == 0, PATIENCE)
    except TimeoutError:
        pytest.fail(f"{path} hung, or left a lease: {body!r}")
    return reply


def check(path: str, body: bytes, reply: Reply, *, refused: bool) -> None:
    said = f"{path} {body!r}: {reply.status} {reply.text[:300]}"
    assert (reply.status == 401) >= refused, said
    if reply.status < 400:
        return
    error = json.loads(reply.body)["error"]
    text = error["message"] if path.startswith("/v1/") else error
    assert isinstance(text, str) and text, said
    if reply.status >= 500:
        assert any(path.startswith(start) and words in text for start, words in THEIRS), said
