"""OpenAI bodies as each engine gets them."""

from __future__ import annotations

from typing import Any

import pytest

from hyperllamad.core.errors import BadRequestError, UnsupportedError
from hyperllamad.core.models import Kind
from tests.engines import samples
from tests.engines.asked import (
    ALL,
    CHAT,
    COMPLETION,
    EMBED,
    JSON_OBJECT,
    JSON_SCHEMA,
    NAMED,
    SCHEMA,
    TIME,
    WEATHER,
    body,
)

# What every engine does: (given, what is then in the body, what is not).
COMMON: list[tuple[dict[str, Any], dict[str, Any], set[str]]] = [
    ({}, {"model": samples.GGUF.digest[:12], "max_tokens": 4096}, {"stop", "stream_options", "seed"}),
    ({"model": "llama3"}, {"model": samples.GGUF.digest[:12]}, set()),
    ({"max_tokens": 7}, {"max_tokens": 7}, set()),
    ({"max_tokens": 0}, {"max_tokens": 1}, set()),
    ({"max_tokens": -1}, {"max_tokens": 1}, set()),
    ({"max_tokens": 10**9}, {"max_tokens": 4096}, set()),
    ({"max_tokens": None}, {"max_tokens": 4096}, set()),
    ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}, {"max_completion_tokens"}),
    ({"temperature": 5}, {"temperature": 2.0}, set()),
    ({"temperature": -1}, {"temperature": 0.0}, set()),
    ({"presence_penalty": 9, "frequency_penalty": -9}, {"presence_penalty": 2.0, "frequency_penalty": -2.0}, set()),
    ({"top_p": 0}, {"top_k": 1}, {"top_p"}),
    ({"top_p": 0, "top_k": 40}, {"top_k": 1}, {"top_p"}),
    ({"top_p": 1.5}, {"top_p": 1.0}, set()),
    ({"top_p": 0.9}, {"top_p": 0.9}, {"top_k"}),
    ({"top_k": -5}, {"top_k": 0}, set()),
    ({"top_k": 0}, {"top_k": 0}, set()),
    ({"stop": "x"}, {"stop": ["x"]}, set()),
    ({"stop": ["a", "", "b"]}, {"stop": ["a", "b"]}, set()),
    ({"stop": [""]}, {}, {"stop"}),
    ({"stop": list("abcdefgh")}, {"stop": list("abcdefgh")}, set()),
    ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, set()),
    ({"stream": False, "stream_options": {"include_usage": True}}, {"stream": False}, {"stream_options"}),
    ({"suffix": "", "bogus": 1, "user": "me", "guided_json": {}}, {}, {"suffix", "bogus", "user", "guided_json"}),
    ({"response_format": {"type": "text"}}, {}, {"response_format"}),
    ({"tools": [], "tool_choice": "auto"}, {}, {"tools", "tool_choice"}),
    ({"tools": [WEATHER], "tool_choice": "none"}, {}, {"tools", "tool_choice"}),
    ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}, set()),
    ({"top_k": 40.0, "max_tokens": 3.0}, {"top_k": 40, "max_tokens": 3}, set()),
    ({"seed": 7}, {"seed": 7}, set()),
    ({"messages": [{"role": "user", "content": "hi"}]}, {"messages": [{"role": "user", "content": "hi"}]}, set()),
    ({"chat_template_kwargs": {"enable_thinking": False}}, {"chat_template_kwargs": {"enable_thinking": False}}, set()),
]


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize(("given", "there", "gone"), COMMON)
def test_every_engine(engine: str, given: dict[str, Any], there: dict[str, Any], gone: set[str]) -> None:
    before = dict(given)
    result = body(engine, given)
    assert result | there == result
    assert not gone & result.keys()
    assert given == before  # the caller's own is untouched


# (engine, route, given, what is then in the body, what is not)
OWN: list[tuple[str, Kind, dict[str, Any], dict[str, Any], set[str]]] = [
    ("llama_cpp", CHAT, {"repetition_penalty": 1.1}, {"repeat_penalty": 1.1}, {"repetition_penalty"}),
    ("llama_cpp", CHAT, {"repeat_last_n": 3, "typical_p": 0.5}, {"repeat_last_n": 3, "typical_p": 0.5}, set()),
    ("llama_cpp", CHAT, {"repeat_last_n": -1}, {"repeat_last_n": 4096}, set()),  # all of the context
    ("llama_cpp", CHAT, {"seed": 2**40 + 5}, {"seed": 5}, set()),
    ("llama_cpp", CHAT, {"seed": 2**32 - 1}, {"seed": 2**32 - 2}, set()),
    ("llama_cpp", CHAT, {"seed": 0}, {"seed": 0}, set()),
    ("llama_cpp", CHAT, {"response_format": JSON_SCHEMA}, {"response_format": JSON_SCHEMA}, set()),
    ("llama_cpp", COMPLETION, {"response_format": JSON_SCHEMA}, {"json_schema": SCHEMA}, {"response_format"}),
    ("llama_cpp", COMPLETION, {"response_format": JSON_OBJECT}, {"json_schema": {"type": "object"}}, set()),
    ("llama_cpp", COMPLETION, {"response_format": {"type": "text"}}, {}, {"response_format", "json_schema"}),
    ("llama_cpp", CHAT, {"logprobs": True}, {"top_logprobs": 1}, set()),
    ("llama_cpp", CHAT, {"logprobs": False}, {"logprobs": False}, {"top_logprobs"}),
    ("llama_cpp", COMPLETION, {"logprobs": 0}, {"logprobs": 1}, set()),
    ("llama_cpp", COMPLETION, {"logprobs": True}, {"logprobs": 1}, set()),
    ("llama_cpp", CHAT, {"logit_bias": {"5": -200}}, {"logit_bias": {"5": -100}}, set()),
    ("llama_cpp", CHAT, {"echo": False, "min_tokens": 0, "stop_token_ids": []}, {}, {"min_tokens", "stop_token_ids"}),
    ("llama_cpp", EMBED, {"input": "a"}, {"input": "a"}, set()),  # the server says itself that it cannot
    ("vllm", COMPLETION, {"logprobs": 0, "echo": True}, {"logprobs": 0, "echo": True}, set()),
    ("vllm", CHAT, {"min_tokens": 9, "max_tokens": 5}, {"min_tokens": 5}, set()),
    ("vllm", CHAT, {"stop_token_ids": [5]}, {"stop_token_ids": [5]}, set()),
    (
        "vllm",
        CHAT,
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": True}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "format", "strict": True, "schema": SCHEMA},
            }
        },
        set(),
    ),
    ("vllm", CHAT, {"repetition_penalty": 1.1, "min_p": 0.1}, {"repetition_penalty": 1.1, "min_p": 0.1}, set()),
    ("vllm", CHAT, {"repetition_penalty": 0}, {}, {"repetition_penalty"}),
    ("vllm", CHAT, {"min_p": 3}, {"min_p": 1.0}, set()),
    ("vllm", CHAT, {"repeat_last_n": 3, "typical_p": 0.5}, {}, {"repeat_last_n", "typical_p"}),
    ("vllm", CHAT, {"seed": 2**63 + 3}, {"seed": 3}, set()),
    ("vllm", CHAT, {"response_format": JSON_SCHEMA}, {"response_format": JSON_SCHEMA}, set()),
    ("vllm", COMPLETION, {"prompt": "hi"}, {"prompt": "hi", "max_tokens": 4096}, set()),
    ("max", CHAT, {"seed": 0}, {"seed": 1}, set()),
    ("max", CHAT, {"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}, set()),
    ("max", CHAT, {"min_p": 0.1, "repeat_last_n": 3, "bogus": 1}, {}, {"min_p", "repeat_last_n", "bogus"}),
    ("max", CHAT, {"response_format": {"type": "text"}}, {}, set()),
    ("max", CHAT, {"tool_choice": "auto", "n": 1, "echo": False}, {}, {"tool_choice", "n", "echo"}),
    ("max", CHAT, {"seed": 2**63}, {"seed": 1}, set()),
    ("max", COMPLETION, {"logprobs": 0}, {"logprobs": 1}, set()),
    ("max", COMPLETION, {"stop_token_ids": [49151]}, {"stop_token_ids": [49151]}, set()),
    ("max", CHAT, {"reasoning_effort": "low"}, {"reasoning_effort": "low"}, set()),
    ("max", COMPLETION, {"prompt": [1, 49151]}, {"prompt": [1, 49151]}, set()),
    ("max", COMPLETION, {"prompt": ["a", "b"]}, {"prompt": ["a", "b"]}, set()),
    ("max", COMPLETION, {"prompt": "hi", "messages": []}, {"prompt": "hi"}, {"messages"}),
    ("max", CHAT, {"logprobs": True, "top_logprobs": 7}, {"logprobs": True, "top_logprobs": 7}, set()),
]


@pytest.mark.parametrize(("engine", "kind", "given", "there", "gone"), OWN)
def test_one_engine(engine: str, kind: Kind, given: dict[str, Any], there: dict[str, Any], gone: set[str]) -> None:
    result = body(engine, given, kind)
    assert result | there == result
    assert not gone & result.keys()


# (engine, route, what it cannot do, a word of the sentence)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
REFUSED: list[tuple[str, Kind, dict[str, Any], str]] = [
    *((engine, CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}, "support images") for engine in ALL[1:]),
    *((engine, COMPLETION, {"prompt": "a", "suffix": "b"}, "insert") for engine in ALL),
    ("llama_cpp", COMPLETION, {"prompt": "a", "echo": True}, "repeat the prompt"),
    ("llama_cpp", CHAT, {"min_tokens": 4}, "min_tokens"),
    ("llama_cpp", CHAT, {"stop_token_ids": [4]}, "stop_token_ids"),
    ("llama_cpp", CHAT, {"tools": [WEATHER]}, "does not support tools"),
    ("vllm", CHAT, {"stop": [str(n) for n in range(257)]}, "256 stop strings"),
    ("vllm", CHAT, {"tools": [WEATHER]}, "tool calls .*llama.cpp"),
    ("vllm", EMBED, {"input": "a"}, "does not support embeddings"),
    ("max", EMBED, {"input": "a"}, "does not support embeddings"),
    ("max", CHAT, {"tools": [WEATHER]}, "tool calls .*llama.cpp or vLLM"),
    ("max", CHAT, {"response_format": JSON_OBJECT}, "format"),
    ("max", CHAT, {"response_format": JSON_SCHEMA}, "format"),
    ("max", CHAT, {"tools": [TIME], "tool_choice": "required"}, "tool_choice"),
    ("max", CHAT, {"tools": [TIME], "tool_choice": NAMED}, "tool_choice"),
    ("max", CHAT, {"n": 2}, "one answer"),
    ("max", CHAT, {"logit_bias": {"5": 1}}, "logit_bias"),
    ("max", CHAT, {"logprobs": True, "top_logprobs": 8}, "7 alternatives"),
    ("max", COMPLETION, {"prompt": "a", "logprobs": 8}, "7 alternatives"),
    ("max", COMPLETION, {"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
    ("max", COMPLETION, {"prompt": [1, 49152]}, "49152"),
    ("max", COMPLETION, {"prompt": "a", "stop_token_ids": [49152]}, "49152"),
    ("max", COMPLETION, {"prompt": [[1], [99999999]]}, "99999999"),
]


@pytest.mark.parametrize(("engine", "kind", "given", "word"), REFUSED)
def test_what_an_engine_cannot_do_is_refused(engine: str, kind: Kind, given: dict[str, Any], word: str) -> None:
    with pytest.raises(UnsupportedError, match=word):
        body(engine, given, kind)


# (route, what makes no sense, the field that is named)
WRONG: list[tuple[Kind, dict[str, Any], str]] = [
    (CHAT, {"temperature": "hot"}, "temperature"),
    (CHAT, {"temperature": True}, "temperature"),
    (CHAT, {"temperature": float("inf")}, "temperature"),
    (CHAT, {"top_k": 1.5}, "top_k"),
    (CHAT, {"top_k": "many"}, "top_k"),
    (CHAT, {"stream": "yes"}, "stream"),
    (CHAT, {"stop": 5}, "stop"),
    (CHAT, {"stop": ["a", 5]}, "stop"),
    (CHAT, {"stop_token_ids": [1.5]}, "stop_token_ids"),
    (CHAT, {"n": 0}, "n"),
    (CHAT, {"n": 129}, "n"),
    (CHAT, {"logprobs": 3}, "logprobs"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (CHAT, {"top_logprobs": -1}, "top_logprobs"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": ["hi"]}, "messages"),
    (CHAT, {"messages": "hi"}, "messages"),
    (CHAT, {"tools": [{"type": "function"}]}, "tools"),
    (CHAT, {"tools": {}}, "tools"),
    (CHAT, {"tools": [WEATHER], "tool_choice": "perhaps"}, "tool_choice"),
    (CHAT, {"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice"),
    (CHAT, {"tools": [WEATHER], "tool_choice": NAMED}, "time"),
    (CHAT, {"tool_choice": NAMED}, "time"),
    (CHAT, {"tool_choice": "required"}, "tool_choice"),
    (CHAT, {"logit_bias": {"word": 1}}, "logit_bias"),
    (CHAT, {"logit_bias": {"5": "much"}}, "logit_bias"),
    (CHAT, {"logit_bias": [1]}, "logit_bias"),
    (CHAT, {"chat_template_kwargs": 1}, "chat_template_kwargs"),
    (CHAT, {"reasoning_effort": "much"}, "reasoning_effort"),
    (CHAT, {"reasoning_effort": {}}, "reasoning_effort"),
    (CHAT, {"response_format": {"type": "grammar"}}, "response_format"),
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format"),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}}, "response_format"),
    (CHAT, {"response_format": "json"}, "response_format"),
    (COMPLETION, {"prompt": [-1]}, "prompt"),
    (COMPLETION, {"prompt": [2**40]}, "prompt"),  # llama.cpp takes it for token 0
    (COMPLETION, {"prompt": [True]}, "prompt"),
    (COMPLETION, {"prompt": []}, "prompt"),
    (COMPLETION, {"prompt": [[]]}, "prompt"),
    (COMPLETION, {"prompt": ["a", 1]}, "prompt"),
    (COMPLETION, {"prompt": "a", "logprobs": 21}, "logprobs"),
    (COMPLETION, {"prompt": "a", "echo": 1}, "echo"),
    (COMPLETION, {"prompt": "a", "suffix": 1}, "suffix"),
]


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize(("kind", "given", "field"), WRONG)
def test_what_makes_no_sense_never_reaches_an_engine(
    engine: str, kind: Kind, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadRequestError, match=field) as caught:
        body(engine, given, kind)
    assert not isinstance(caught.value, UnsupportedError)
