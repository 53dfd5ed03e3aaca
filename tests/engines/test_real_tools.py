"""Tool calls through the real engines' own parsers: a small model is made to write them, and they come back as calls.

The demo model has no tools in its chat template, so it is given one that has; what it writes is held to the grammar.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.core.models import Capability, Kind, Model
from hyperllamad.core.names import ModelName
from hyperllamad.engines import families
from hyperllamad.store.inspect import inspect
from hyperllamad.store.layout import locate
from tests.daemon import INSTALLED
from tests.engines.running import Running, running

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

TEMPLATE = (Path(__file__).parent / "tools.jinja").read_text()
NAME = ModelName.parse("caller")


def tool(name: str, argument: str) -> dict[str, Any]:
    properties = {argument: {"type": "string", "enum": ["Paris", "Rome"]}}
    schema = {"type": "object", "properties": properties, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": f"The {name}", "parameters": schema}}


TOOLS = [tool("get_weather", "city"), tool("get_time", "zone")]
ASKED = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": TOOLS, "temperature": 0}
TIME = {"type": "function", "function": {"name": "get_time"}}


def directory(tmp_path: Path) -> Model:
    """The demo model as it would be with tools in its template."""
    demo = next(path.parent for path in INSTALLED.models.rglob("config.json"))
    for path in demo.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    return inspect(NAME, locate(tmp_path))


def calls(engine: Running, **asked: Any) -> list[dict[str, Any]]:
    status, reply = engine.ask(Kind.CHAT, ASKED | {"max_tokens": 100} | asked)
    assert status == 200, reply
    return [call["function"] for call in reply["choices"][0]["message"].get("tool_calls") or ()]


def test_vllm_is_told_the_parser_and_calls_what_it_must(tmp_path: Path) -> None:
    model = directory(tmp_path)
    assert Capability.TOOLS in model.capabilities
    assert families.find(model).vllm_tools == "hermes"
    with running("vllm", model) as engine:
        (call,) = calls(engine, tool_choice=TIME)
        assert (call["name"], arguments(call, "zone")) == ("get_time", True)
        (call,) = calls(engine, tool_choice="required")
        assert (call["name"], arguments(call, "city")) == ("get_weather", True)
        assert calls(engine, tool_choice="none") == []


def test_llama_cpp_finds_the_format_in_the_template() -> None:
    """It lets a model talk before the call it must make, and this one would never stop: so it is pushed to the mark."""
    gguf = next(INSTALLED.models.rglob("*.gguf"))
    with running("llama_cpp", inspect(NAME, locate(gguf)), args=("--chat-template", TEMPLATE)) as engine:
        _, reply = engine.send("POST", "/tokenize", {"content": '<tool_call>\n{"name": "'})
        pushed = {"logit_bias": {str(token): 100 for token in reply["tokens"]}}
        for choice, name, argument in ((TIME, "get_time", "zone"), ("required", "get_weather", "city")):
            made = calls(
                engine, tool_choice=choice, max_tokens=48, **pushed
            )  # the push makes it go on to a second call
            assert made
            assert {call["name"] for call in made} == {name}
            assert arguments(made[0], argument)
        assert calls(engine, tool_choice="none", max_tokens=10) == []


def arguments(call: dict[str, Any], name: str) -> bool:
    """Whether they are what the tool's schema says."""
    said = json.loads(call["arguments"])
    return set(said) == {name} and said[name] in {"Paris", "Rome"}
