"""One daemon for all real-engine tests, with the demo model under a name for each engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.daemon import INSTALLED, Daemon, daemon

ENGINES = ("llama_cpp", "vllm", "max")
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
PARIS = [SYSTEM, {"role": "user", "content": "What is the capital of France?"}]
LONG = [SYSTEM, {"role": "user", "content": "Count from one to five hundred in words, one after the other."}]
GREEDY = {"temperature": 0, "num_predict": 32}


def demo_models() -> dict[str, dict[str, object]]:
    """models.d entries: `demo-llama_cpp` and so on."""
    gguf = next(INSTALLED.models.rglob("*.gguf"), None)
    directory = next((p.parent for p in INSTALLED.models.rglob("config.json")), None)
    assert gguf is not None, "`make engines` installs the demo model"
    assert directory is not None, "`make engines` installs the demo model"
    paths = {"llama_cpp": gguf, "vllm": directory, "max": directory}
    return {f"demo-{engine}": {"path": str(paths[engine]), "engine": engine} for engine in ENGINES}


@pytest.fixture(scope="session")
def served() -> Iterator[Daemon]:
    with daemon(demo_models(), main='[fleet]\nkeep_alive = "-1"\nmax_loaded_models = 3\n') as running:
        yield running
