"""Texts to embed as each engine gets them."""

from __future__ import annotations

from typing import Any

import pytest

from hyperllamad.core.errors import BadRequestError, UnsupportedError
from hyperllamad.core.models import Kind
from hyperllamad.engines import base
from tests.engines import samples
from tests.engines.asked import ALL, CHAT, COMPLETION, EMBED


def encode(engine: str, given: dict[str, Any]) -> dict[str, Any]:
    return base.load(engine).body(EMBED, given, samples.encoder_for(engine), samples.settings(engine))


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize("texts", ["hi", "", ["a", "b"], [1, 2], [[1], [2, 30521]]])
def test_an_embedding_model_is_asked_for_vectors(engine: str, texts: Any) -> None:
    result = encode(engine, {"input": texts, "model": "x", "dimensions": 2, "temperature": 1})
    assert result == {"input": texts, "model": samples.encoder_for(engine).digest[:12]}


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize("given", [{"input": []}, {"input": 5}, {"input": "a", "encoding_format": "gzip"}])
def test_wrong_texts_to_embed(engine: str, given: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="must be"):
        encode(engine, given)


def test_max_gives_numbers_only_and_dies_of_tokens_it_does_not_have() -> None:
    assert "encoding_format" in encode("vllm", {"input": "a", "encoding_format": "base64"})
    assert "encoding_format" not in encode("max", {"input": "a", "encoding_format": "base64"})
    with pytest.raises(UnsupportedError, match="30522 is no token"):
        encode("max", {"input": [[1], [30522]]})


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize(("kind", "verb"), [(CHAT, "chat"), (COMPLETION, "generate")])
def test_an_embedding_model_writes_nothing(engine: str, kind: Kind, verb: str) -> None:
    with pytest.raises(UnsupportedError, match=f"does not support {verb}"):
        base.load(engine).body(kind, {}, samples.encoder_for(engine), samples.settings(engine))
