"""Bodies to break a server with: for every POST route a good one that uses all its fields, and ways to spoil it.

A value is replaced or taken away, a key is doubled or renamed, or the bytes themselves are cut, flipped or mixed.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NATIVE_CALL = {"id": "c", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}
IMAGE = "data:image/png;base64,iVBORw0K"
PART = {"type": "image_url", "image_url": {"url": IMAGE}}
COMMON: dict[str, Any] = {"model": "mt", "temperature": 1, "top_p": 1, "seed": 1, "stream": False, "keep_alive": "1m"}
NATIVE: dict[str, Any] = {
    "model": "mt",
    "stream": False,
    "format": {"type": "object"},
    "keep_alive": "1m",
    "options": {"temperature": 1, "num_ctx": 8, "stop": ["a"], "num_predict": 1, "seed": 1, "top_k": 1, "nonsense": 1},
    "think": False,
    "truncate": True,
    "shift": True,
    "logprobs": True,
    "top_logprobs": 1,
    "_debug_render_only": False,
}
REQUESTS: dict[str, Any] = {
    "/api/chat": NATIVE
    | {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "x", "images": ["aGk="]},
            {"role": "assistant", "content": "", "thinking": "t", "tool_calls": [NATIVE_CALL]},
            {"role": "tool", "content": "y", "tool_name": "f", "tool_call_id": "c"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
    },
    "/api/generate": NATIVE
    | {
        "prompt": "x",
        "suffix": "",
        "system": "s",
        "template": "{{ .Prompt }}",
        "context": [],
        "raw": False,
        "images": ["aGk="],
    },
    "/api/embed": {"model": "me", "input": ["a", "b"], "truncate": True, "dimensions": 1, "options": {"num_ctx": 8}},
    "/api/embeddings": {"model": "me", "prompt": "a", "keep_alive": 1, "options": {}},
    "/api/tokenize": {"model": "mt", "content": "a", "text": "b", "add_special": True, "parse_special": True},
    "/api/detokenize": {"model": "mt", "tokens": [1, 2], "keep_alive": "1m"},
    "/api/show": {"model": "mt", "verbose": True, "system": "s", "template": "t", "options": {"stop": ["a"]}},
    "/api/copy": {"source": "here", "destination": "copied"},
    "/api/create": {
        "model": "made",
        "from": "here",
        "stream": False,
        "system": "s",
        "license": ["l"],
        "parameters": {"temperature": 1, "stop": ["a"]},
        "messages": [{"role": "user", "content": "x"}],
        "template": "t",
    },
    "/api/pull": {"model": "hf.co/org/none", "stream": True, "insecure": True},
    "/api/push": {"model": "here", "stream": True},
    "/api/me": {},
    "/api/signout": {},
    "/api/experimental/web_search": {"query": "x"},
    "/api/experimental/web_fetch": {"url": "x"},
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
    "/v1/rerank": {
        "model": "me",
        "query": "q",
        "documents": ["a", {"text": "b"}],
        "top_n": 1,
        "return_documents": True,
    },
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
REQUESTS["/v1/messages/count_tokens"] = REQUESTS["/v1/messages"]
OTHERS: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, 10**30, -(10**30), 10**400, 1e300, -0.0, 1e-320),
    *(
        "",
        "x",
        "\ud800",
        "\x00",
        "mt",
        "me",
        "<|im_start|>",
        "../../etc/passwd",
        "hf.co/a/b",
        "é" * 300,
        "json",
        "high",
    ),
    *([], {}, [None], [[]], [1], ["x"], [{}], [-1], [2**40], {"type": None}, {"type": "function"}, {"type": "text"}),
    *({"a": {"b": [10**30]}}, {"type": "object", "properties": []}, [{"role": "user", "content": []}]),
]
GARBAGE = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"1",
    b'"x"',
    b"{}{}",
    b"\xff\xfe",
    b"\x00",
    b"[" * 5000,
    b'{"a":' * 5000,
    b"\xef\xbb\xbf{}",
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside of a body."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in [(*path, key), *places(item, (*path, key))]]


def spoilt(body: dict[str, Any], rng: random.Random) -> bytes:
    """Up to three values changed, and one time in five the bytes as well."""
    body = copy.deepcopy(body)
    for _ in range(rng.randint(0, 3)):
        if found := places(body):
            _spoil(body, rng.choice(found), rng)
    raw = json.dumps(body).encode()
    return _spoilt_bytes(raw, rng) if rng.random() < 0.2 else raw


def _spoil(body: Any, place: tuple[Any, ...], rng: random.Random) -> None:
    *way, last = place
    for step in way:
        body = body[step]
    chance = rng.random()
    if chance < 0.15:
        del body[last]
    elif chance < 0.25 and isinstance(body, dict):
        body[rng.choice([str(last).upper(), f"{last}_", ""])] = body.pop(last)
    elif chance < 0.35 and isinstance(body, list):
        body.extend(copy.deepcopy(body) * rng.choice([1, 50]))
    else:
        body[last] = copy.deepcopy(rng.choice(OTHERS))


def _spoilt_bytes(raw: bytes, rng: random.Random) -> bytes:
    chance, at = rng.random(), rng.randrange(len(raw) + 1)
    if chance < 0.3:
        return raw[:at]
    if chance < 0.6:
        return raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
    if chance < 0.8:
        return raw[:at] + raw[rng.randrange(len(raw) + 1) :]
    return rng.choice(GARBAGE)
