"""One daemon on llama.cpp for all clients: a model to talk to, one that calls tools and thinks, one that embeds.

`make clients` runs everything here in an environment of its own, with `CLIENTS=all`; elsewhere the clients that are
not installed are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import INSTALLED, Daemon, daemon
from tests.engines import able, encoder

JS = Path(__file__).parent / "js"
_ALL = ("langchain_ollama", "llama_index", "litellm")
_NEEDED = {
    "test_show.py": all(map(find_spec, _ALL)),
    "test_langchain.py": find_spec("langchain_ollama") and find_spec("langchain_openai"),
    "test_llama_index.py": find_spec("llama_index"),
    "test_litellm.py": find_spec("litellm"),
    "test_ollama_js.py": (JS / "node_modules").is_dir(),
}
collect_ignore = [] if os.environ.get("CLIENTS") == "all" else [file for file, there in _NEEDED.items() if not there]

DEMO, ABLE, ENCODER = "demo", "able", "encoder"
SYSTEM = "You are a helpful assistant."
QUESTION = "What is the capital of France?"
PARIS: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
ASKED: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
WEATHER_IN_LIMA: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather in Lima?"}]
_CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather in a city", "parameters": _CITY},
}
TEXTS = ["The cat sat on the mat.", "A cat is sitting on a rug.", "Stocks fell sharply on Monday."]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("models")
    demo = next(INSTALLED.models.rglob("*.gguf"), None)
    assert demo is not None, "`make engines` installs the demo model"
    paths = {DEMO: demo, ABLE: able.gguf(root), ENCODER: encoder.gguf(encoder.fetch(root))}
    # One thread each: the models are small, and engines that wait for each other's threads are slow on a busy machine.
    keys = {"engine": "llama_cpp", "args": ["--threads", "1"]}
    models = {name: {"path": str(path), **keys} for name, path in paths.items()}
    with daemon(models, main='[fleet]\nkeep_alive = "-1"\nmax_loaded_models = 3\n') as running:
        yield running


def alike(vectors: list[list[float]]) -> bool:
    """Whether the vectors of TEXTS have length 1, and the two about cats are nearer to each other than to the third."""
    near, far, cat = (
        _product(vectors[0], vectors[1]),
        _product(vectors[0], vectors[2]),
        _product(vectors[0], vectors[0]),
    )
    return len(vectors[0]) == encoder.WIDTH and abs(cat - 1) < 1e-4 and near > 0.5 > far


def _product(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
