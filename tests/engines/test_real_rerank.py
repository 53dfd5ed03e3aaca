"""A real cross-encoder on both engines that run one: every pair gets a probability, and pairs are told apart.

Its body is all-MiniLM-L6-v2, its head is drawn once.  The two engines' numbers are not held against each other: they
were seen to differ by up to 0.04.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hyperllamad.core.errors import NoEngineError, UnsupportedError
from hyperllamad.core.models import Kind, Model
from hyperllamad.core.names import ModelName
from hyperllamad.engines import bodies, choose
from hyperllamad.engines.base import Home
from hyperllamad.store.inspect import inspect
from hyperllamad.store.layout import locate
from tests.engines import bert_gguf
from tests.engines.running import Running, running
from tests.engines.test_real_embeddings import directory  # noqa: F401  a fixture

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(600)]

QUERY = "Where does the cat sit?"
DOCUMENTS = ["The cat sits on the mat.", "Stock prices fell on Monday.", "日本語のテキスト", "cats, mats, " * 30]


@pytest.fixture(scope="module")
def models(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:  # noqa: F811
    judge = np.random.default_rng(1).normal(size=384).astype(np.float32)
    root = tmp_path_factory.mktemp("judge")
    bert_gguf.write(directory, root / "judge.gguf", judge=judge)
    paths = {"llama_cpp": root / "judge.gguf", "vllm": _as_directory(directory, root / "judge", judge)}
    return {engine: inspect(ModelName.parse("judge"), locate(path)) for engine, path in paths.items()}


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


def judged(engine: Running, documents: Sequence[str]) -> list[float]:
    status, reply = engine.ask(Kind.RERANK, {"query": QUERY, "documents": list(documents)})
    assert status == 200, reply
    scores = {result["index"]: result["relevance_score"] for result in reply["results"]}
    found = [scores[index] for index in range(len(documents))]
    return found if engine.engine.bounded_scores else [1 / (1 + math.exp(-score)) for score in found]


@pytest.mark.parametrize("name", ["llama_cpp", "vllm"])
def test_pairs_are_judged(models: dict[str, Model], name: str) -> None:
    model = models[name]
    assert bodies.ranks(model)
    with running(name, model, context=256) as engine:
        scores = judged(engine, DOCUMENTS)
        assert all(0 < score < 1 for score in scores)
        assert len({round(score, 3) for score in scores}) == len(DOCUMENTS), "it tells them apart"
        if name == "llama_cpp":
            assert judged(engine, DOCUMENTS[:1]) == pytest.approx(scores[:1], abs=1e-4), "alone or among others"
        with pytest.raises(UnsupportedError, match="does not support embeddings"):
            engine.ask(Kind.EMBED, {"input": "x"})


def test_max_says_that_it_cannot(models: dict[str, Model]) -> None:
    home = Home("max-1-cpu", "max", "1", "cpu", "/nowhere", "/nowhere/bin/python")
    with pytest.raises(NoEngineError, match="MAX: it computes no embeddings with the architecture BertForSequence"):
        choose.choose(models["vllm"], [home], device="cpu")
