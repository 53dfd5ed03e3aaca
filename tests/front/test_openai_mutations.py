"""Bodies with some values replaced, more than a thousand of them: never a 5xx, never a lease left, the right shape."""

from __future__ import annotations

import copy
import random
from collections import Counter
from typing import Any

import pytest

from hyperllamad.core.models import Capability
from tests.front import fake_supervisor as fakes
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Answer, Asked, Stream, Whole, short_chat

ROUNDS = 250
MODELS = (
    fakes.model("mt", Capability.TOOLS, Capability.VISION),
    fakes.model("me", capabilities=frozenset({Capability.EMBEDDING})),
)
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = "data:image/png;base64,iVBORw0K"
PART = {"type": "image_url", "image_url": {"url": IMAGE}}
COMMON: dict[str, Any] = {"model": "mt", "temperature": 1, "top_p": 1, "seed": 1, "stream": False, "keep_alive": "1m"}
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": COMMON
    | {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning": "r"},
            {"role": "tool", "tool_call_id": "c", "content": "y", "name": "f"},
            {"role": "user", "content": [PART]},
        ],
        "max_tokens": 1,
        "max_completion_tokens": 1,
        "stop": ["a"],
        "n": 1,
        "logprobs": True,
        "top_logprobs": 1,
        "logit_bias": {"1": 1},
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        "stream_options": {"include_usage": True},
        "reasoning": {"effort": "none"},
        "top_k": 1,
    },
    "/v1/completions": COMMON | {"prompt": "x", "max_tokens": 1, "stop": "a", "n": 1, "logprobs": 1, "suffix": ""},
    "/v1/embeddings": {"model": "me", "input": ["a", "b"], "dimensions": 1, "encoding_format": "base64"},
    "/v1/responses": COMMON
    | {
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": IMAGE}],
            },
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": "e"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "y"},
        ],
        "instructions": "i",
        "max_output_tokens": 1,
        "tools": [{"type": "function", **FUNCTION}, {"type": "namespace", "tools": [{"type": "function", **FUNCTION}]}],
        "tool_choice": "auto",
        "reasoning": {"effort": "none", "summary": "auto"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        "metadata": {"a": "b"},
    },
    "/v1/messages": {
        "model": "mt",
        "max_tokens": 1,
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "c", "name": "f", "input": {}},
                    {"type": "thinking", "thinking": "t"},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "y"}]},
            {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "iVBO"}}]},
        ],
        "stop_sequences": ["a"],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "thinking": {"type": "disabled"},
        "output_config": {"effort": "low"},
        "stream": False,
    },
}
OTHERS: list[Any] = [
    *(None, True, 0, -1, 1.5, 2**31, 2**63, 10**30, -(10**30), 1e300, "", "x", "\ud800", "\x00", [], {}, [None], [[]]),
    *([1], ["x"], [{}], {"type": None}, {"type": "function"}, {"type": "text"}, {"a": {"b": [10**30]}}),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside of a body."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in [(*path, key), *places(item, (*path, key))]]


def mutated(body: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One to three values replaced or taken away."""
    body = copy.deepcopy(body)
    for _ in range(rng.randint(1, 3)):
        *way, last = rng.choice(places(body))
        at: Any = body
        for step in way:
            at = at[step]
        if rng.random() < 0.2:
            del at[last]
        else:
            at[last] = copy.deepcopy(rng.choice(OTHERS))
    return body


def engine(asked: Asked) -> Answer:
    if asked.path == "/v1/embeddings":
        items = ",".join(f'{{"index":{i},"embedding":[1,2]}}' for i in range(len(asked.body["input"])))
        return Whole(200, f'{{"data":[{items}]}}'.encode())
    return Stream(short_chat("a"))


@pytest.mark.parametrize("path", REQUESTS)
async def test_mutations(house: OpenHouse, path: str) -> None:
    rng, seen = random.Random(path), Counter[int]()
    async with house(engine, models=MODELS) as h:
        for _ in range(ROUNDS):
            body = mutated(REQUESTS[path], rng)
            reply = await h.client.post(path, body)
            seen[reply.status] += 1
            assert reply.status < 500, (body, reply.text)
            if reply.status >= 400:
                assert reply.json()["error"]["message"], body
        await h.wait_idle()
    assert min(seen[200], seen[400]) > ROUNDS / 10, seen
