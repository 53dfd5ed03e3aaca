"""Tools, thoughts and gaps in the words of each engine and family; and no field that is lost in silence."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hyperllamad.core.errors import BadRequestError, UnsupportedError
from hyperllamad.core.models import Kind
from hyperllamad.engines import base, fields
from tests.engines import samples
from tests.engines.asked import ALL, CHAT, COMPLETION, JSON_SCHEMA, NAMED, TIME, WEATHER, body, called


@pytest.mark.parametrize("engine", ["llama_cpp", "vllm"])
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_tools(engine: str, choice: str) -> None:
    given = {"tools": [WEATHER, TIME], "tool_choice": choice, "parallel_tool_calls": False}
    result = called(engine, given)
    strict = [{**tool, "function": {"strict": True, **tool["function"]}} for tool in (WEATHER, TIME)]
    wanted = strict if (engine, choice) == ("vllm", "required") else given["tools"]
    assert result | given | {"tools": wanted} == result


@pytest.mark.parametrize("engine", ["llama_cpp", "vllm"])
def test_one_tool_by_name_is_the_only_one(engine: str) -> None:
    result = called(engine, {"tools": [WEATHER, TIME], "tool_choice": NAMED})
    assert ([tool["function"]["name"] for tool in result["tools"]], result["tool_choice"]) == (["time"], "required")


def test_max_is_sent_tools_where_it_reads_the_calls() -> None:
    given = {"tools": [WEATHER]}
    assert called("max", given, architecture="Qwen3_5ForCausalLM")["tools"] == [WEATHER]
    with pytest.raises(UnsupportedError, match="tool calls"):
        called("max", given)


def test_users_may_say_how_tools_are_called() -> None:
    tools = {"tools": [WEATHER]}
    assert body("vllm", tools, args=("--tool-call-parser", "hermes"))["tools"] == [WEATHER]
    assert body("vllm", tools, args=("--tool-call-parser=hermes",))["tools"] == [WEATHER]
    assert body("llama_cpp", tools, args=("--chat-template", "x"))["tools"] == [WEATHER]


@pytest.mark.parametrize("engine", ["vllm", "max"])
def test_the_switch_for_reasoning_has_the_family_s_name(engine: str) -> None:
    given = {"chat_template_kwargs": {"enable_thinking": False, "x": 1}}
    assert called(engine, given)["chat_template_kwargs"] == {"enable_thinking": False, "x": 1}
    granite = called(engine, given, architecture="GraniteForCausalLM")
    assert granite["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False, "x": 1}
    assert "chat_template_kwargs" not in called(engine, {}, architecture="GraniteForCausalLM")


@pytest.mark.parametrize("engine", ["vllm", "max"])
def test_a_gap_is_put_in_the_family_s_words(engine: str) -> None:
    result = called(engine, {"prompt": "def f({suffix}", "suffix": "{prefix})"}, COMPLETION)
    assert result["prompt"] == "<|fim_prefix|>def f({suffix}<|fim_suffix|>{prefix})<|fim_middle|>"
    assert "suffix" not in result


def test_llama_cpp_fills_gaps_by_the_tokens_of_the_file() -> None:
    given = {"prompt": "a", "suffix": "b"}
    assert called("llama_cpp", given, COMPLETION)["prompt"] == [7, "a", 8, "b", 9]
    begun = samples.FIM | {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.add_bos_token": True}
    assert called("llama_cpp", given, COMPLETION, info=begun)["prompt"] == [1, 7, "a", 8, "b", 9]


@pytest.mark.parametrize("engine", ALL)
def test_a_gap_in_token_ids(engine: str) -> None:
    with pytest.raises(BadRequestError, match="one text"):
        called(engine, {"prompt": [1], "suffix": "b"}, COMPLETION)


def test_max_keeps_to_a_format_on_a_gpu() -> None:
    given = {"response_format": JSON_SCHEMA}
    assert body("max", given, device="cuda")["response_format"] == JSON_SCHEMA


def test_max_takes_no_token_ids_it_cannot_check() -> None:
    unknown = dataclasses.replace(samples.DIRECTORY, info={})
    with pytest.raises(UnsupportedError, match="text only"):
        base.load("max").body(COMPLETION, {"prompt": [1]}, unknown, samples.settings("max"))


# For every field a body may hold: a value that means something.  (What is left at its neutral value proves nothing.)
MEANINGFUL: dict[str, Any] = {
    "temperature": 0.3, "top_p": 0.4, "top_k": 7, "min_p": 0.1, "typical_p": 0.6, "repetition_penalty": 1.2,
    "repeat_last_n": 9, "presence_penalty": 0.2, "frequency_penalty": 0.3, "seed": 11, "stop": ["x"],
    "stop_token_ids": [5], "ignore_eos": True, "min_tokens": 2, "max_tokens": 9, "logit_bias": {"5": 1.0}, "n": 2,
    "response_format": JSON_SCHEMA, "stream": True, "return_token_ids": True,
    "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 8, "tools": [WEATHER],
    "tool_choice": "required", "parallel_tool_calls": False, "logprobs": True, "top_logprobs": 2,
    "chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low",
    "prompt": "x", "suffix": "y", "echo": True, "input": ["x"], "encoding_format": "float",
    "query": "q", "documents": ["d"],
}  # fmt: skip
NEEDS = {"tool_choice": ["tools"], "parallel_tool_calls": ["tools"], "top_logprobs": ["logprobs"]}
ELSEWHERE = {  # what carries the meaning on, where it is not the field itself
    "repetition_penalty": "repeat_penalty", "max_completion_tokens": "max_tokens", "response_format": "json_schema",
    "suffix": "prompt",
}  # fmt: skip
NOTHING_LOST = {("llama_cpp", "return_token_ids"), ("max", "encoding_format")}  # it answers in that form anyway


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize("kind", [CHAT, COMPLETION])
def test_no_field_is_lost_in_silence(engine: str, kind: Kind) -> None:
    """Each is handed on, refused in words that name it, or in the engine's `ignores`, which clients are told of."""
    lost, refused = set(), set()
    assert fields._FIELDS[kind].keys() <= MEANINGFUL.keys()
    for name in fields._FIELDS[kind]:
        given = {other: MEANINGFUL[other] for other in NEEDS.get(name, ())} | {name: MEANINGFUL[name]}
        given |= {"prompt": "x"} if kind is COMPLETION else {"messages": MEANINGFUL["messages"]}
        try:
            made = body(engine, given, kind)
        except (UnsupportedError, BadRequestError) as refusal:
            assert str(refusal)
            refused.add(name)
            continue
        if name not in made and ELSEWHERE.get(name) not in made and (engine, name) not in NOTHING_LOST:
            lost.add(name)
    told = base.load(engine).ignores.keys() & fields._FIELDS[kind].keys()
    assert lost <= told <= lost | refused
