"""OpenAI bodies as each engine gets them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hyperllamad.core.errors import BadRequestError, UnsupportedError
from hyperllamad.core.models import Kind
from hyperllamad.engines import base, fields
from tests.engines import samples

CHAT, COMPLETION, EMBED = Kind.CHAT, Kind.COMPLETION, Kind.EMBED
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "format", "schema": SCHEMA}}
JSON_OBJECT = {"type": "json_object"}
ALL = base.NAMES
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
TIME = {"type": "function", "function": {"name": "time"}}
NAMED = {"type": "function", "function": {"name": "time"}}


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


# -- embeddings --------------------------------------------------------------------------------------------------------


def encode(engine: str, given: dict[str, Any]) -> dict[str, Any]:
    return base.load(engine).body(EMBED, given, samples.encoder_for(engine), samples.settings(engine))


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize("texts", ["hi", "", ["a", "b"], [1, 2], [[1], [2, 30521]]])
def test_an_embedding_model_is_asked_for_vectors(engine: str, texts: Any) -> None:
    result = encode(engine, {"input": texts, "model": "x", "dimensions": 2, "temperature": 1})
    assert result == {"input": texts, "model": samples.encoder_for(engine).digest[:12]}


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize("given", [{"input": []}, {"input": 5}, {"input": "a", "encoding_format": "gzip"}])
def test_wrong_texts_to_embed(engine: str, given: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="must be"):
        encode(engine, given)


def test_max_gives_numbers_only_and_dies_of_tokens_it_does_not_have() -> None:
    assert "encoding_format" in encode("vllm", {"input": "a", "encoding_format": "base64"})
    assert "encoding_format" not in encode("max", {"input": "a", "encoding_format": "base64"})
    with pytest.raises(UnsupportedError, match="30522 is no token"):
        encode("max", {"input": [[1], [30522]]})


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize(("kind", "verb"), [(CHAT, "chat"), (COMPLETION, "generate")])
def test_an_embedding_model_writes_nothing(engine: str, kind: Kind, verb: str) -> None:
    with pytest.raises(UnsupportedError, match=f"does not support {verb}"):
        base.load(engine).body(kind, {}, samples.encoder_for(engine), samples.settings(engine))


def test_whose_vectors_have_length_one() -> None:
    assert {name: base.load(name).unit_vectors for name in ALL} == {"llama_cpp": True, "vllm": True, "max": False}


# -- tools, reasoning, gaps --------------------------------------------------------------------------------------------


def called(engine: str, given: dict[str, Any], kind: Kind = CHAT, **changes: Any) -> dict[str, Any]:
    model = dataclasses.replace(samples.caller_for(engine), **changes)
    return base.load(engine).body(kind, given, model, samples.settings(engine))


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
