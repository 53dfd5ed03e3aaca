"""Every recorded case, in the order of the recording, against the app over a scripted engine."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.config.load import load_config
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.library import Library
from hyperllamad.store.shortnames import ShortNames
from tests.conformance import deviations, facts
from tests.front import fake_supervisor as fakes
from tests.front.conftest import House, OpenHouse, Store
from tests.front.scripted_engine import Answer, Asked, Stream, Whole, events, recording
from tests.store.files import small_gguf


def engine(asked: Asked) -> Answer:
    """Says what llama.cpp said, as far as the limit goes."""
    if asked.path == "/apply-template":
        return Whole(200, b'{"prompt":"<|im_start|>user\\nx"}')
    if asked.path == "/tokenize":
        return Whole(200, b'{"tokens":[1,4093,198]}')
    kind = "chat" if asked.path.startswith("/v1/chat") else "completion"
    name = "llama_cpp-chat" if kind == "chat" and not asked.body.get("logprobs") else f"llama_cpp-{kind}-logprobs"
    role, *words, finish, usage, done = [without_logprobs(asked, event) for event in events(recording(name))]
    if kind == "completion" or asked.body["max_tokens"] >= len(words):
        return Stream([role, *words, finish, usage, done])
    cut = finish.replace(b'"stop"', b'"length"')
    return Stream([role, *words[: asked.body["max_tokens"]], cut, usage, done])


def without_logprobs(asked: Asked, event: bytes) -> bytes:
    """An event as it would have been, had nobody asked for them."""
    if asked.body.get("logprobs") or b'"logprobs"' not in event:
        return event
    chunk = json.loads(event[6:])
    chunk["choices"][0]["logprobs"] = None
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


async def ask(h: House, case: dict[str, Any]) -> dict[str, Any]:
    raw = case.get("raw")
    body = raw if raw is not None else json.dumps(case["body"]) if "body" in case else None
    headers = case.get("headers", {})
    reply = await h.client.ask(
        case["method"], case["path"], raw=None if body is None else body.encode(), headers=headers
    )
    first = {name: value for name, value in reversed(reply.headers)}  # noqa: C416  the first one must win
    return facts.facts(reply.status, first, reply.body)


def small_store(root: Path) -> Store:
    """The model `m` on a disk, and the blob that the recorded server had already."""
    config = load_config(root, environ={"HOME": str(root)})
    models = config.paths.models
    (models / "m@latest").mkdir(parents=True)
    (models / "m@latest" / "m.gguf").write_bytes(small_gguf())
    (models / ".blobs").mkdir()
    (models / ".blobs" / f"sha256-{hashlib.sha256(b'hello').hexdigest()}").write_bytes(b"hello")
    return Store(Catalog(config.paths, config.models, config.model), Library(config, ShortNames(())))


async def test_the_recorded_cases(house: OpenHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")  # as the recording was made: a zone that is told from UTC
    time.tzset()
    cases, recorded = facts.cases(), facts.golden()
    can = fakes.FakeEngine(apply_template="/apply-template", tokenize="/tokenize")
    async with house(engine, engine=can, store=small_store(tmp_path)) as h:
        found = {case["id"]: facts.compare(case, recorded[case["id"]], await ask(h, case)) for case in cases}
    monkeypatch.undo()
    time.tzset()
    assert deviations.unexpected("scripted", found) == []
    assert len(found) == 111
