"""A real cross-encoder on both engines that run one: the same pairs get the same relevance.

Its body is all-MiniLM-L6-v2, its head is drawn once: what it prefers means nothing, and both engines must prefer it.
Its two token types are made alike, because llama.cpp does not tell a pair's second text from the first by them.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hyperllamad.core.errors import NoEngineError, UnsupportedError
from hyperllamad.core.models import Kind, Model
from hyperllamad.core.names import ModelName
from hyperllamad.engines import base, bodies, choose
from hyperllamad.engines.base import Home
from hyperllamad.store.inspect import inspect
from hyperllamad.store.layout import locate
from tests.engines import bert_gguf
from tests.engines.running import running
from tests.engines.test_real_embeddings import directory  # noqa: F401  a fixture

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

QUERY = "Where does the cat sit?"
DOCUMENTS = ["The cat sits on the mat.", "Stock prices fell on Monday.", "日本語のテキスト", "cats, mats, " * 30]
AGREEMENT = 1e-4  # of two probabilities; seen: 2e-6


@pytest.fixture(scope="module")
def models(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:  # noqa: F811
    encoder = _with_one_type(directory, tmp_path_factory.mktemp("encoder"))
    judge = np.random.default_rng(1).normal(size=384).astype(np.float32)
    root = tmp_path_factory.mktemp("judge")
    bert_gguf.write(encoder, root / "judge.gguf", judge=judge)
    paths = {"llama_cpp": root / "judge.gguf", "vllm": _as_directory(encoder, root / "judge", judge)}
    return {engine: inspect(ModelName.parse("judge"), locate(path)) for engine, path in paths.items()}


def _with_one_type(encoder: Path, path: Path) -> Path:
    shutil.copytree(encoder, path, dirs_exist_ok=True)
    weights = {name: np.array(values) for name, values in bert_gguf.tensors(encoder / "model.safetensors")}
    types = weights["embeddings.token_type_embeddings.weight"]
    types[1] = types[0]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


def _as_directory(encoder: Path, path: Path, judge: Any) -> Path:
    path.mkdir()
    for name in ("vocab.txt", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"):
        if (encoder / name).exists():
            shutil.copy(encoder / name, path)
    config = json.loads((encoder / "config.json").read_bytes())
    config |= {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "0"}, "label2id": {"0": 0}}
    (path / "config.json").write_text(json.dumps(config))
    found = bert_gguf.tensors(encoder / "model.safetensors")
    weights = {f"bert.{name}": np.ascontiguousarray(values) for name, values in found}
    head = {"classifier.weight": judge[None, :], "classifier.bias": np.zeros(1, dtype=np.float32)}
    save_file(weights | head, path / "model.safetensors", metadata={"format": "pt"})
    return path


def judged(name: str, model: Model) -> Iterator[float]:
    with running(name, model, context=256) as engine:
        status, reply = engine.ask(Kind.RERANK, {"query": QUERY, "documents": DOCUMENTS})
        assert status == 200, reply
        with pytest.raises(UnsupportedError, match="does not support embeddings"):
            engine.ask(Kind.EMBED, {"input": "x"})
    scores = {result["index"]: result["relevance_score"] for result in reply["results"]}
    for index in range(len(DOCUMENTS)):
        bounded = base.load(name).bounded_scores
        yield scores[index] if bounded else 1 / (1 + math.exp(-scores[index]))


def test_both_engines_judge_alike(models: dict[str, Model]) -> None:
    assert all(bodies.ranks(model) for model in models.values())
    one, other = (list(judged(name, model)) for name, model in models.items())
    assert one == pytest.approx(other, abs=AGREEMENT)
    assert len({round(score, 3) for score in one}) > 2, "it tells them apart"
    assert all(0 <= score <= 1 for score in one)


def test_max_says_that_it_cannot(models: dict[str, Model]) -> None:
    home = Home("max-1-cpu", "max", "1", "cpu", "/nowhere", "/nowhere/bin/python")
    with pytest.raises(NoEngineError, match="MAX: it computes no embeddings with the architecture BertForSequence"):
        choose.choose(models["vllm"], [home], device="cpu")
