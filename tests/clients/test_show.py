"""What clients read of `show` and `tags`, of the demo model in both formats: by their own code where it is Python.

Nothing is loaded.  Continue is written in TypeScript and lives in editors: what its core/llm/llms/Ollama.ts reads of
the answer is done here again, line by line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # read at import: it would fetch a list of prices

import httpx
import litellm
import pytest
from langchain_ollama import ChatOllama
from llama_index.llms.ollama import Ollama

from tests.daemon import Daemon, daemon
from tests.engines import able
from tests.real.conftest import demo_model

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

TRAINED = 8192
FORMATS = ("gguf", "directory")
STOP = ['</s> "quoted"', "\n\n", "<|im_end|>"]
PARAMETERS = {"temperature": 0.25, "num_ctx": 2048, "stop": STOP, "penalize_newline": True}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root: Path = tmp_path_factory.mktemp("able")
    (root / "gguf").mkdir()
    (root / "directory").mkdir()
    models = {
        "gguf": {"path": demo_model("llama_cpp")["path"], "parameters": PARAMETERS},
        "directory": {"path": demo_model("vllm")["path"], "parameters": PARAMETERS},
        "gguf-able": {"path": str(able.gguf(root / "gguf"))},
        "directory-able": {"path": str(able.directory(root / "directory"))},
    }
    with daemon(models) as running:
        yield running


@pytest.mark.parametrize("model", FORMATS)
def test_langchain_finds_the_model(shown: Daemon, model: str) -> None:
    ChatOllama(base_url=shown.url, model=model, validate_model_on_init=True)
    with pytest.raises(ValueError, match="not found in Ollama"):
        ChatOllama(base_url=shown.url, model=f"{model}-not", validate_model_on_init=True)


@pytest.mark.parametrize("model", FORMATS)
def test_llama_index_finds_the_context(shown: Daemon, model: str) -> None:
    found = Ollama(model=model, base_url=shown.url)
    assert (found.get_context_window(), found.metadata.context_window) == (TRAINED, TRAINED)


@pytest.mark.parametrize("model", FORMATS)
def test_litellm_finds_context_and_tools(shown: Daemon, model: str) -> None:
    info = litellm.get_model_info(f"ollama/{model}", api_base=shown.url)
    assert (info["max_tokens"], info["max_input_tokens"], info["mode"]) == (TRAINED, TRAINED, "chat")
    assert not info["supports_function_calling"]
    assert litellm.get_model_info(f"ollama/{model}-able", api_base=shown.url)["supports_function_calling"]


@pytest.mark.parametrize("model", FORMATS)
def test_continue_finds_context_and_stop_strings(shown: Daemon, model: str) -> None:
    read = continue_reads(httpx.post(f"{shown.url}/api/show", json={"name": model}))
    assert read == {"contextLength": 2048, "stop": STOP, "fimSupported": False}
    assert continue_reads(httpx.post(f"{shown.url}/api/show", json={"name": f"{model}-not"})) == {}


def continue_reads(response: httpx.Response) -> dict[str, Any]:
    """A line of parameters that its pattern does not match is an exception there, which loses everything after it."""
    if response.status_code != 200:
        return {}
    body = response.json()
    found: dict[str, Any] = {}
    for line in body["parameters"].split("\n") if body.get("parameters") else ():
        parts = re.search(r'^(\S+)\s+((?:".*")|\S+)$', line)
        assert parts is not None, line
        if parts[1] == "num_ctx":
            found["contextLength"] = int(parts[2])
        elif parts[1] == "stop":
            found.setdefault("stop", []).append(json.loads(parts[2]))
    return found | {"fimSupported": ".Suffix" in (body.get("template") or "")}
