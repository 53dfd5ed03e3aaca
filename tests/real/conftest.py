"""One daemon for each engine with the demo model as `m`, shared by all tests that ask one engine.

pytest runs all tests of one engine before those of the next, so an engine is loaded once for whatever only asks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ollama
import pytest

from tests.daemon import INSTALLED, Daemon, daemon

ENGINES = ("llama_cpp", "vllm", "max")
MODEL = "m"  # as the recorded cases call it
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
PARIS = [SYSTEM, {"role": "user", "content": "What is the capital of France?"}]
LONG = [SYSTEM, {"role": "user", "content": "Count from one to five hundred in words, one after the other."}]
GREEDY = {"temperature": 0, "num_predict": 32}
# A zone that is told from UTC, as the recording had one.
ZONE = {"TZ": "America/New_York"}


def demo_model(engine: str) -> dict[str, Any]:
    """The keys of a models.d entry for the demo model on that engine."""
    gguf = next(INSTALLED.models.rglob("*.gguf"), None)
    directory = next((p.parent for p in INSTALLED.models.rglob("config.json")), None)
    assert gguf is not None, "`make engines` installs the demo model"
    assert directory is not None, "`make engines` installs the demo model"
    return {"path": str(gguf if engine == "llama_cpp" else directory), "engine": engine}


def answer(url: str, model: str) -> str:
    """What the model says the capital of France is."""
    with ollama.Client(url, timeout=600) as client:
        return client.chat(model, PARIS, options=GREEDY).message.content or ""


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="session")
def served(engine: str) -> Iterator[Daemon]:
    with daemon({MODEL: demo_model(engine)}, main='[fleet]\nkeep_alive = "-1"\n', environ=ZONE) as running:
        yield running
