"""A real sentence encoder on every engine: the vectors agree, and what each says of itself holds.

The encoder is all-MiniLM-L6-v2; llama.cpp gets it as a GGUF made of the directory that the two others read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from hyperllamad.core.errors import UnsupportedError
from hyperllamad.core.models import Capability, Kind, Model
from hyperllamad.core.names import ModelName
from hyperllamad.store.inspect import inspect
from hyperllamad.store.layout import locate
from tests.engines import encoder
from tests.engines.encoder import CONTEXT, VOCABULARY, WIDTH
from tests.engines.running import Running, running

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(900)]

TEXTS = [
    "The cat sat on the mat, unbelievably café.",
    "a",
    "",
    "Embeddings of the same text must agree between engines; " * 8,
    "日本語のテキスト",
    "12345 $%^ \n\t code(x)",
]
AGREEMENT = 1e-5  # 1 - cosine; seen: 1.3e-6 between llama.cpp and the others, 1e-12 between vLLM and MAX
UNIT = 1e-5


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder.fetch(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def models(directory: Path) -> dict[str, Model]:
    paths = {"llama_cpp": encoder.gguf(directory), "vllm": directory, "max": directory}
    return {engine: inspect(ModelName.parse("encoder"), locate(path)) for engine, path in paths.items()}


def vectors(engine: Running, texts: Sequence[str]) -> list[list[float]]:
    status, reply = engine.ask(Kind.EMBED, {"input": list(texts), "encoding_format": "float", "dimensions": 8})
    assert status == 200, reply
    found = [item["embedding"] for item in reply["data"]]
    assert {len(vector) for vector in found} == {WIDTH}
    return found


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def test_every_engine_gives_the_same_vectors(models: dict[str, Model]) -> None:
    found: dict[str, list[list[float]]] = {}
    for name, model in models.items():
        assert model.capabilities == {Capability.EMBEDDING}
        with running(name, model, context=model.context_length) as engine:
            found[name] = vectors(engine, TEXTS)
            assert found[name][0] == pytest.approx(vectors(engine, TEXTS[:1])[0], abs=1e-4)  # alone or among others
            lengths = [math.hypot(*vector) for vector in found[name]]
            assert all(abs(length - 1) < UNIT for length in lengths) is (name != "max"), "whose grow with the text"
            with pytest.raises(UnsupportedError, match="does not support chat"):
                engine.ask(Kind.CHAT, {"messages": [{"role": "user", "content": "hi"}]})
            if name == "max":
                with pytest.raises(UnsupportedError, match="no token"):
                    engine.ask(Kind.EMBED, {"input": [VOCABULARY]})  # it would be the end of it
                assert engine.ask(Kind.EMBED, {"input": [VOCABULARY - 1]})[0] == 200
    for name, others in found.items():
        for text, one, other in zip(TEXTS, found["vllm"], others, strict=True):
            assert 1 - cosine(one, other) < AGREEMENT, (name, text)
    assert cosine(found["vllm"][0], found["vllm"][4]) < 0.9  # different texts are told apart


def test_what_the_files_say(models: dict[str, Model]) -> None:
    assert (models["vllm"].context_length, models["vllm"].info["bert.vocab_size"]) == (CONTEXT, VOCABULARY)
    assert models["vllm"].info["bert.pooling_type"] == models["llama_cpp"].info["bert.pooling_type"] == 1


def test_llama_cpp_takes_texts_longer_than_its_usual_batch(models: dict[str, Model]) -> None:
    with running("llama_cpp", models["llama_cpp"], context=512) as engine:
        assert vectors(engine, ["word " * 500])
        status, reply = engine.ask(Kind.EMBED, {"input": "word " * 600})
        assert status in {400, 500}, reply
