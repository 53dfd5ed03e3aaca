"""OpenAI bodies as each engine gets them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hyperllamad.core.errors import UnsupportedError
from hyperllamad.core.models import Capability, Kind
from hyperllamad.engines import base
from tests.engines import samples

CHAT, COMPLETION, EMBED = Kind.CHAT, Kind.COMPLETION, Kind.EMBED
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "format", "schema": SCHEMA}}
JSON_OBJECT = {"type": "json_object"}
ALL = base.NAMES


def body(engine: str, given: dict[str, Any], kind: Kind = CHAT, **settings: Any) -> dict[str, Any]:
    stated = samples.settings(engine, settings.pop("device", "cpu"), **settings)
    return base.load(engine).body(kind, given, samples.model_for(engine), stated)


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
    ({"suffix": ""}, {}, {"suffix"}),
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
    ("llama_cpp", CHAT, {"seed": 2**40 + 5}, {"seed": 5}, set()),
    ("llama_cpp", CHAT, {"seed": 2**32 - 1}, {"seed": 2**32 - 2}, set()),
    ("llama_cpp", CHAT, {"seed": 0}, {"seed": 0}, set()),
    ("llama_cpp", CHAT, {"response_format": JSON_SCHEMA}, {"response_format": JSON_SCHEMA}, set()),
    ("llama_cpp", COMPLETION, {"response_format": JSON_SCHEMA}, {"json_schema": SCHEMA}, {"response_format"}),
    ("llama_cpp", COMPLETION, {"response_format": JSON_OBJECT}, {"json_schema": {"type": "object"}}, set()),
    ("llama_cpp", COMPLETION, {"response_format": {"type": "text"}}, {}, {"response_format", "json_schema"}),
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
    ("max", CHAT, {"tool_choice": "auto", "n": 1, "echo": False}, {"tool_choice": "auto"}, {"n", "echo"}),
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
REFUSED: list[tuple[str, Kind, dict[str, Any], str]] = [
    *((engine, COMPLETION, {"prompt": "a", "suffix": "b"}, "insert") for engine in ALL),
    ("llama_cpp", COMPLETION, {"response_format": {"type": "grammar"}}, "response_format"),
    ("vllm", CHAT, {"stop": [str(n) for n in range(257)]}, "256 stop strings"),
    ("vllm", CHAT, {"tools": [{"type": "function"}]}, "tool calls"),
    ("llama_cpp", EMBED, {"input": "a"}, "does not support embeddings"),
    ("vllm", EMBED, {"input": "a"}, "does not support embeddings"),
    ("max", EMBED, {"input": "a"}, "not normalised"),
    ("max", CHAT, {"response_format": JSON_OBJECT}, "format"),
    ("max", CHAT, {"response_format": JSON_SCHEMA}, "format"),
    ("max", CHAT, {"tool_choice": "required"}, "tool_choice"),
    ("max", CHAT, {"tool_choice": {"type": "function"}}, "tool_choice"),
    ("max", CHAT, {"n": 2}, "one answer"),
    ("max", CHAT, {"logit_bias": {"5": 1}}, "logit_bias"),
    ("max", CHAT, {"logprobs": True, "top_logprobs": 8}, "7 alternatives"),
    ("max", COMPLETION, {"prompt": "a", "logprobs": 8}, "7 alternatives"),
    ("max", COMPLETION, {"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
    ("max", COMPLETION, {"prompt": [1, 49152]}, "49152"),
    ("max", COMPLETION, {"prompt": [-1]}, "-1"),
    ("max", COMPLETION, {"prompt": [True]}, "True"),
    ("max", COMPLETION, {"prompt": [[1], [99999999]]}, "99999999"),
]


@pytest.mark.parametrize(("engine", "kind", "given", "word"), REFUSED)
def test_what_an_engine_cannot_do_is_refused(engine: str, kind: Kind, given: dict[str, Any], word: str) -> None:
    with pytest.raises(UnsupportedError, match=word):
        body(engine, given, kind)


@pytest.mark.parametrize("engine", ["llama_cpp", "vllm"])
def test_an_embedding_model_is_asked_for_nothing_else(engine: str) -> None:
    model = dataclasses.replace(samples.model_for(engine), capabilities=frozenset({Capability.EMBEDDING}))
    result = base.load(engine).body(EMBED, {"input": "hi", "model": "x"}, model, samples.settings(engine))
    assert result == {"input": "hi", "model": model.digest[:12]}


def test_vllm_calls_tools_when_told_how_they_are_written() -> None:
    tools = {"tools": [{"type": "function"}]}
    assert body("vllm", tools, args=("--tool-call-parser", "hermes"))["tools"] == tools["tools"]
    assert body("vllm", tools, args=("--tool-call-parser=hermes",))["tools"] == tools["tools"]


def test_max_keeps_to_a_format_on_a_gpu() -> None:
    given = {"response_format": JSON_SCHEMA}
    assert body("max", given, device="cuda")["response_format"] == JSON_SCHEMA


def test_max_takes_no_token_ids_it_cannot_check() -> None:
    unknown = dataclasses.replace(samples.DIRECTORY, info={})
    with pytest.raises(UnsupportedError, match="text only"):
        base.load("max").body(COMPLETION, {"prompt": [1]}, unknown, samples.settings("max"))
