"""families.toml: what it says of which model, and that the engines know the parsers it names."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from hyperllamad.core.errors import ConfigError
from hyperllamad.core.names import ModelName
from hyperllamad.engines import families
from hyperllamad.engines.families import Ways
from tests.daemon import INSTALLED
from tests.engines import samples

SHIPPED = Path(__file__).parents[2] / "etc" / "hyperllama" / "families.toml"
QWEN = "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"


def ways(architecture: str = "Other", name: str = "model", template: str = "", basename: str = "") -> Ways:
    model = dataclasses.replace(
        samples.DIRECTORY,
        name=ModelName.parse(name),
        architecture=architecture,
        chat_template=template,
        info={"general.basename": basename},
    )
    return families.find(model)


CASES: list[tuple[dict[str, str], Ways]] = [
    ({}, Ways()),
    ({"architecture": "LlamaForCausalLM"}, Ways()),
    ({"architecture": "GptOssForCausalLM"}, Ways("openai", "openai_gptoss")),
    ({"architecture": "LlamaForCausalLM", "template": "<|python_tag|>"}, Ways("llama3_json")),
    ({"architecture": "LlamaForCausalLM", "template": "<tool_call>"}, Ways("hermes")),
    (
        {"architecture": "LlamaForCausalLM", "name": "codellama:7b"},
        Ways(insert="▁<PRE> {prefix} ▁<SUF>{suffix} ▁<MID>"),
    ),
    ({"architecture": "LlamaForCausalLM", "name": "DeepSeek-R1:8b"}, Ways(vllm_reasoning="deepseek_r1")),
    ({"architecture": "LlamaForCausalLM", "basename": "DeepSeek-R1-Distill"}, Ways(vllm_reasoning="deepseek_r1")),
    ({"architecture": "DeepseekV3ForCausalLM", "name": "deepseek-r1"}, Ways(vllm_reasoning="deepseek_r1")),
    (
        {"architecture": "DeepseekV3ForCausalLM", "name": "deepseek-v3.1"},
        Ways("deepseek_v31", "deepseek_v3", "deepseekv3_1", "thinking"),
    ),
    ({"architecture": "DeepseekV3ForCausalLM", "name": "deepseek-v3"}, Ways("deepseek_v3", "", "deepseekv3")),
    ({"architecture": "MistralForCausalLM", "template": "[TOOL_CALLS]"}, Ways("mistral")),
    ({"architecture": "MistralForCausalLM"}, Ways()),
    ({"architecture": "GraniteForCausalLM"}, Ways("granite", "granite", thinking="thinking")),
    (
        {"architecture": "Qwen3ForCausalLM", "template": "<tool_call> enable_thinking </think>"},
        Ways("hermes", "qwen3", insert=QWEN),
    ),
    (
        {"architecture": "Qwen3MoeForCausalLM", "template": "<tool_call><function=x>"},
        Ways("qwen3_xml", insert=QWEN),
    ),
    ({"architecture": "Qwen3_5ForCausalLM"}, Ways("qwen3_coder", "qwen3", "qwen3_5", insert=QWEN)),
    (
        {"architecture": "Qwen2ForCausalLM", "name": "qwq:32b", "template": "<tool_call>"},
        Ways("hermes", "deepseek_r1", insert=QWEN),
    ),
    ({"template": "<think>"}, Ways(vllm_reasoning="deepseek_r1")),
    ({"template": "<think></think> enable_thinking"}, Ways(vllm_reasoning="qwen3")),
]


@pytest.mark.parametrize(("model", "said"), CASES)
def test_what_is_said_of_a_model(model: dict[str, str], said: Ways) -> None:
    assert ways(**model) == said


def test_every_row_says_something_that_can_be_reached() -> None:
    answers = ("vllm_tools", "vllm_reasoning", "max_tools", "thinking", "insert")
    table = families.read(SHIPPED)
    assert len({family.name for family in table}) == len(table)
    for place, family in enumerate(table):
        assert family.source
        given = [answer for answer in answers if getattr(family, answer)]
        assert given, family.name
        for earlier in table[:place]:  # none before it fits whatever it fits and says all it says
            wider = set(family.architectures) <= set(earlier.architectures) and not (earlier.names or earlier.template)
            assert not (wider and family.architectures and all(getattr(earlier, a) for a in given)), family.name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "families.toml"),
        ("[[family]]\nname = 'a'", "source"),
        ("[[family]]\nname = 'a'\nsource = ''\nbogus = 1", "bogus"),
        ("[[family]]\nname = 'a'\nsource = ''", "every model"),
        ("[[family]]\nname = 'a'\nsource = ''\nnames = '('", "families.toml"),
        ("[[family]]\nname = 'a'\nsource = ''\nnames = 'x'\ninsert = '{prefix}'", "suffix"),
        ("[[family]]\nname = 'a'\nsource = ''\nnames = 'x'\ninsert = '{prefix}{suffix}{suffix}'", "suffix"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "families.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        families.read(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        families.read(tmp_path)


def registered(pattern: str) -> set[str]:
    """The keys of the dictionaries ..._PARSERS_TO_REGISTER in an installed engine's source."""
    (path,) = INSTALLED.engines.glob(pattern)
    found: set[str] = set()
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            found |= {key.value for key in statement.value.keys if isinstance(key, ast.Constant)}
    return found


@pytest.mark.real
@pytest.mark.parametrize(("package", "answer"), [("tool_parsers", "vllm_tools"), ("reasoning", "vllm_reasoning")])
def test_vllm_knows_its_parsers(package: str, answer: str) -> None:
    known = registered(f"vllm-*/lib/python3*/site-packages/vllm/{package}/__init__.py")
    assert len(known) > 20
    assert {getattr(family, answer) for family in families.read(SHIPPED)} - {""} <= known


@pytest.mark.real
def test_engines_know_the_architectures_and_max_its_parsers() -> None:
    (package,) = INSTALLED.engines.glob("max-*/lib/python3*/site-packages/max/pipelines/architectures")
    source = "".join(path.read_text() for path in package.glob("*/tool_parser.py"))
    wanted = {family.max_tools for family in families.read(SHIPPED)} - {""}
    assert wanted
    assert {name for name in wanted if f'@register("{name}")' not in source} == set()
    (registry,) = INSTALLED.engines.glob("vllm-*/lib/python3*/site-packages/vllm/model_executor/models/registry.py")
    text = registry.read_text()
    named = {architecture for family in families.read(SHIPPED) for architecture in family.architectures}
    assert {architecture for architecture in named if f'"{architecture}"' not in text} == set()
