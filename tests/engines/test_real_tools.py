"""Tool calls and thoughts of a real model through the real engines' own parsers.

The demo model has neither in its chat template, so it is given one whose examples it copies: see able.py.  On llama.cpp
it then calls by itself.  On vLLM, which holds no call that was not asked for to a grammar, its calls are asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.core.models import Capability, Kind
from hyperllamad.core.names import ModelName
from hyperllamad.engines import families
from hyperllamad.store.inspect import inspect
from hyperllamad.store.layout import locate
from tests.engines import able
from tests.engines.running import Running, running

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(900)]

NAME = ModelName.parse("caller")
CALLS_ONLY = (Path(__file__).parent / "tools.jinja").read_text(encoding="utf-8")


def tool(name: str, argument: str) -> dict[str, Any]:
    properties = {argument: {"type": "string", "enum": ["Paris", "Rome"]}}
    schema = {"type": "object", "properties": properties, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": f"The {name}", "parameters": schema}}


TOOLS = [tool("get_weather", "city"), tool("get_time", "zone")]
ASKED = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": TOOLS, "temperature": 0}
TIME = {"type": "function", "function": {"name": "get_time"}}


def message(engine: Running, **asked: Any) -> dict[str, Any]:
    status, reply = engine.ask(Kind.CHAT, ASKED | {"max_tokens": 100} | asked)
    assert status == 200, reply
    said: dict[str, Any] = reply["choices"][0]["message"]
    return said


def calls(engine: Running, **asked: Any) -> list[dict[str, Any]]:
    return [call["function"] for call in message(engine, **asked).get("tool_calls") or ()]


def check_thoughts(engine: Running) -> None:
    asked = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "tools": None}
    said = message(engine, **asked)
    assert "capital" in (said.get("reasoning") or said.get("reasoning_content"))
    assert (said["content"] or "").strip() == "The capital of France is Paris."
    said = message(engine, **asked, chat_template_kwargs={"enable_thinking": False})
    assert not (said.get("reasoning") or said.get("reasoning_content"))
    assert "Paris" in said["content"]


def test_vllm_is_told_the_parser_of_thoughts(tmp_path: Path) -> None:
    model = inspect(NAME, locate(able.directory(tmp_path)))
    assert {Capability.TOOLS, Capability.THINKING} <= model.capabilities
    assert families.find(model).vllm_reasoning == "qwen3"
    with running("vllm", model) as engine:
        check_thoughts(engine)


def test_vllm_is_told_the_parser_of_calls_and_calls_what_it_must(tmp_path: Path) -> None:
    model = inspect(NAME, locate(able.directory(tmp_path, CALLS_ONLY)))
    assert Capability.TOOLS in model.capabilities
    assert families.find(model).vllm_tools == "hermes"
    with running("vllm", model) as engine:
        (call,) = calls(engine, tool_choice=TIME)
        assert (call["name"], arguments(call, "zone")) == ("get_time", True)
        (call,) = calls(engine, tool_choice="required")
        assert (call["name"], arguments(call, "city")) == ("get_weather", True)
        assert calls(engine, tool_choice="none") == []


def test_llama_cpp_finds_both_in_the_template(tmp_path: Path) -> None:
    model = inspect(NAME, locate(able.gguf(tmp_path)))
    assert {Capability.TOOLS, Capability.THINKING} <= model.capabilities
    with running("llama_cpp", model) as engine:
        check_thoughts(engine)
        (call,) = calls(engine)
        assert (call["name"], arguments(call, "city")) == ("get_weather", True), "by itself"
        (call,) = calls(engine, tool_choice=TIME)
        assert (call["name"], arguments(call, "zone")) == ("get_time", True)
        made = {(call["name"], arguments(call, "city")) for call in calls(engine, tool_choice="required")}
        assert made == {("get_weather", True)}
        assert calls(engine, tool_choice="none", max_tokens=20) == []


def arguments(call: dict[str, Any], name: str) -> bool:
    """Whether they are what the tool's schema says."""
    said = json.loads(call["arguments"])
    return set(said) == {name} and said[name] in {"Paris", "Rome"}
