"""Models that cannot be loaded: the cause in plain words, in the API, in hyperllamactl and in the log."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest

from tests.daemon import Daemon, daemon
from tests.real.conftest import GREEDY, PARIS, demo_model

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Every model here is broken in its own way."""
    root = tmp_path_factory.mktemp("broken")
    good = demo_model("llama_cpp")
    gguf, directory = Path(good["path"]), Path(demo_model("vllm")["path"])
    (root / "cut.gguf").write_bytes(gguf.read_bytes()[:30_000_000])
    (root / "noise.gguf").write_bytes(b"not a model " * 1000)
    shutil.copytree(directory, root / "noarch")
    config = (root / "noarch/config.json").read_text()
    (root / "noarch/config.json").write_text(
        config.replace("LlamaForCausalLM", "FooForCausalLM").replace('"llama"', '"foo"')
    )
    shutil.copytree(directory, root / "cutdir")
    weights = next((root / "cutdir").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    models: dict[str, dict[str, object]] = {
        "cut": {"path": str(root / "cut.gguf")},
        "noise": {"path": str(root / "noise.gguf")},
        "gone": {"path": str(root / "gone.gguf")},
        "noarch": {"path": str(root / "noarch")},
        "cutdir": {"path": str(root / "cutdir"), "engine": "vllm"},
        "wrong-engine": {**good, "engine": "max"},
        "bad-flag": {**good, "args": ["--no-such-flag"]},
    }
    with daemon(models) as running:
        yield running


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("cut", "truncated"),
        ("noise", "not a GGUF"),
        ("gone", "does not exist"),
        ("noarch", "FooForCausalLM"),
        ("cutdir", "truncated"),
        ("wrong-engine", "GGUF"),
        ("bad-flag", "no-such-flag"),
    ],
)
def test_the_cause_is_told(broken: Daemon, model: str, says: str) -> None:
    with ollama.Client(broken.url, timeout=120) as client, pytest.raises(ollama.ResponseError) as caught:
        client.chat(model, PARIS, options=GREEDY)
    assert says.lower() in caught.value.error.lower(), caught.value.error
    assert caught.value.status_code in {400, 500}
    done = broken.ctl("load", model, check=False)
    assert done.returncode in {1, 5}
    assert says.lower() in done.stderr.lower(), done.stderr
    assert says.lower() in broken.log.read_text().lower()
