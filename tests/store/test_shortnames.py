"""Names and where they lead; the catalogue that is shipped, checked as data."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from hyperllamad.core.errors import ConfigError, RepositoryNotFoundError, UnknownShortNameError
from hyperllamad.core.names import ModelName
from hyperllamad.store import shortnames
from hyperllamad.store.shortnames import ShortNames, Source, source_of

SHIPPED = Path(__file__).parents[2] / "etc" / "hyperllama" / "catalog.toml"


@pytest.fixture(scope="module")
def names() -> ShortNames:
    return shortnames.read(SHIPPED)


def test_the_shipped_catalogue(names: ShortNames) -> None:
    assert len({ModelName.parse(entry.name).model for entry in names.entries}) >= 60
    repository = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
    for entry in names.entries:
        assert entry.checked >= date(2026, 11, 25)
        assert re.match("https://(huggingface.co|github.com)/[^/]+/.", entry.source), entry
        assert not entry.also or entry.also.startswith("https://github.com/"), entry
        assert entry.parameters > 0
        assert 0 <= entry.active < entry.parameters
        assert entry.context == 0 or 256 <= entry.context <= 1 << 24
        assert all(repository.fullmatch(it) for it in (*entry.weights.values(), entry.gguf) if it), entry
        assert set(entry.weights) <= {"bf16", "fp8", "awq", "gptq", "mxfp4"}
        assert entry.name == entry.name.lower()
    for model in {ModelName.parse(entry.name).model for entry in names.entries}:
        assert sum(entry.default for entry in names.entries if entry.name.split(":")[0] == model) == 1, model


@pytest.mark.parametrize(
    ("name", "prefer", "source"),
    [
        ("hf.co/Qwen/Qwen3-8B-GGUF:Q4_K_M", [], Source("Qwen/Qwen3-8B-GGUF", "Q4_K_M")),
        ("huggingface.co/Qwen/Qwen3-8B", [], Source("Qwen/Qwen3-8B")),
        ("Qwen/Qwen3-8B", [], Source("Qwen/Qwen3-8B")),
        ("Qwen/Qwen3-8B:LATEST", ["gguf"], Source("Qwen/Qwen3-8B", "", "gguf")),
        ("qwen3", ["fp8"], Source("Qwen/Qwen3-8B-FP8", kind="fp8")),
        ("QWEN3:8B", ["x", "awq"], Source("Qwen/Qwen3-8B-AWQ", kind="awq")),
        ("qwen3:0.6b", ["awq"], Source("Qwen/Qwen3-0.6B", kind="bf16")),
        ("qwen3:8b", ["gguf", "fp8"], Source("Qwen/Qwen3-8B-GGUF", kind="gguf")),
        ("qwen3:8b-bf16", ["gguf"], Source("Qwen/Qwen3-8B", kind="bf16")),
        ("qwen3:8b-fp16", ["gguf"], Source("Qwen/Qwen3-8B", kind="bf16")),
        ("qwen3:8b-gguf", ["fp8"], Source("Qwen/Qwen3-8B-GGUF", kind="gguf")),
        ("qwen3:8b-q4_K_M", ["fp8"], Source("Qwen/Qwen3-8B-GGUF", "q4_k_m", "gguf")),
        ("llama3.1:8b-instruct-q8_0", [], Source("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "q8_0", "gguf")),
        ("llama3.1:8b-instruct-fp16", [], Source("meta-llama/Llama-3.1-8B-Instruct", kind="bf16")),
    ],
)
def test_where_names_lead(names: ShortNames, name: str, prefer: list[str], source: Source) -> None:
    assert source_of(ModelName.parse(name), names, prefer) == source


def test_unknown_short_names(names: ShortNames) -> None:
    with pytest.raises(UnknownShortNameError) as unknown:
        source_of(ModelName.parse("lama3.1"), names, [])
    assert "llama3.1" in unknown.value.nearest
    assert "the nearest are llama3.1" in unknown.value.message
    assert "hf.co/" in unknown.value.hint
    with pytest.raises(UnknownShortNameError) as unknown:
        source_of(ModelName.parse("llama3.1:9b"), names, [])
    assert unknown.value.nearest == ("llama3.1:8b", "llama3.1:70b", "llama3.1:405b")
    with pytest.raises(UnknownShortNameError, match=r"^'zzzzzzzz:latest' is not in the catalogue of short names .any"):
        source_of(ModelName.parse("zzzzzzzz"), names, [])


def test_what_there_is_not(names: ShortNames) -> None:
    with pytest.raises(RepositoryNotFoundError, match=r"'awq'.*there is llama3.2-vision:11b-bf16"):
        source_of(ModelName.parse("llama3.2-vision:11b-awq"), names, [])
    with pytest.raises(RepositoryNotFoundError, match=r"example\.org is not a model hub"):
        source_of(ModelName.parse("example.org/a/b"), names, [])


def test_files_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    good = '[[model]]\nname = "m:1"\ngguf = "a/b"\nchecked = 2026-01-01\nsource = "s"\n'
    path.write_text(good)
    assert shortnames.load(tmp_path).entries[0].name == "m:1"
    for text, words in {
        good + good: "m:1 is there twice",
        good.replace("gguf", "surprise"): "surprise",
        good.replace("m:1", "bad name"): "invalid model name",
        good.replace('gguf = "a/b"\n', ""): "neither `weights` nor `gguf`",
        good.replace("checked = 2026-01-01\n", ""): "checked",
        "[[": "catalog.toml",
    }.items():
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            shortnames.load(tmp_path)


def test_the_shipped_one_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortnames, "SYSTEM_DIRECTORY", tmp_path)
    assert len(shortnames.load(tmp_path).entries) > 100
