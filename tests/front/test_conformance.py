"""Every recorded case whose route stands, in the order of the recording, against the app over a scripted engine."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.conformance import facts
from tests.front import fake_supervisor as fakes
from tests.front.conftest import House, OpenHouse
from tests.front.scripted_engine import Answer, Asked, Stream, Whole, events, recording

# Case id, or the part before the slash -> why it is not run yet.
LATER = {
    "embed": "embeddings are a later issue",
    "copy": "changing the store is a later issue",
    "delete": "changing the store is a later issue",
    "create": "changing the store is a later issue",
    "blob": "changing the store is a later issue",
    "body/object-embed": "embeddings are a later issue",
    "body/empty-embeddings": "embeddings are a later issue",
    "body/object-pull": "pulling is a later issue",
    "body/empty-create": "changing the store is a later issue",
    "body/object-create": "changing the store is a later issue",
    "body/empty-delete": "changing the store is a later issue",
    "body/object-delete": "changing the store is a later issue",
    "body/empty-copy": "changing the store is a later issue",
    "body/object-copy": "changing the store is a later issue",
    "name/unknown-embed": "embeddings are a later issue",
    "name/unknown-copy": "changing the store is a later issue",
    "name/unknown-delete": "changing the store is a later issue",
    "name/invalid-pull": "pulling is a later issue",
    "name/invalid-copy": "changing the store is a later issue",
    "name/invalid-delete": "changing the store is a later issue",
}

# Case id -> what differs from Ollama on purpose, as a path into the facts (docs/compatibility.md says why).
BETTER = {
    "openai/models": "body.1.data.1.context_length",
    "openai/model": "body.1.context_length",
}


def later(case: str) -> str:
    return LATER.get(case) or LATER.get(case.partition("/")[0], "")


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


async def test_the_recorded_cases(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")  # as the recording was made: a zone that is told from UTC
    time.tzset()
    cases = [case for case in facts.cases() if not later(case["id"])]
    recorded = facts.golden()
    found: dict[str, list[str]] = {}
    async with house(engine, engine=fakes.FakeEngine(apply_template="/apply-template", tokenize="/tokenize")) as h:
        for case in cases:
            ignored = [*case.get("ignore", []), *filter(None, [BETTER.get(case["id"])])]
            wanted = facts.without(recorded[case["id"]] | case.get("expect", {}), ignored)
            got = facts.without(await ask(h, case), ignored)
            if differing := list(facts.differences(wanted, got)):
                found[case["id"]] = differing
    monkeypatch.undo()
    time.tzset()
    assert found == {}
    assert len(cases) == 82


def test_what_is_left_for_later_is_known() -> None:
    names = {case["id"] for case in facts.cases()}
    rooms = {name.partition("/")[0] for name in names}
    assert LATER.keys() <= names | rooms
    assert {name for name in names if later(name)} | {name for name in names if not later(name)} == names


def test_the_comparison_finds_differences() -> None:
    one = facts.facts(200, {"content-type": "application/json"}, b'{"a":1,"done":true}')
    assert list(facts.differences(one, one)) == []
    other = facts.facts(404, {"content-type": "application/json"}, b'{"a":"x","done":false,"b":null}\n')
    assert len(list(facts.differences(one, other))) == 5
