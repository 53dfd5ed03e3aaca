"""The digest: it names the weights, wherever they lie."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.store.files import Tensor, gguf_bytes, small_directory, small_gguf
from tests.store.looks import gguf, look


def test_the_digest_names_the_weights(tmp_path: Path) -> None:
    model = gguf(tmp_path)
    copy = tmp_path / "elsewhere.gguf"
    copy.write_bytes(small_gguf())
    assert look(copy).digest == model.digest
    changed = bytearray(small_gguf())
    changed[-1] ^= 1
    copy.write_bytes(changed)
    assert look(copy).digest != model.digest
    copy.write_bytes(small_gguf(general__name="Other"))
    assert look(copy).digest != model.digest


def test_the_digest_of_a_directory(tmp_path: Path) -> None:
    first = look(small_directory(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("not part of the model")
    assert look(tmp_path / "b").digest == first.digest
    for directory in ("a", "b"):
        (tmp_path / directory / "tokenizer.json").write_text("x" * 1_000_000)
    with_tokenizer = look(tmp_path / "a").digest
    assert first.digest != with_tokenizer == look(tmp_path / "b").digest
    (tmp_path / "b" / "tokenizer.json").write_text("x" * 345_678 + "y" + "x" * 654_321)
    assert look(tmp_path / "b").digest != with_tokenizer
    for directory in ("a", "b"):
        (tmp_path / directory / "tokenizer.json").unlink()
    for name in ("config.json", "model.safetensors"):
        path = tmp_path / "b" / name
        before = path.read_bytes()
        path.write_bytes(before[:-2] + b" }" if name == "config.json" else before[:-1] + b"\x01")
        assert look(tmp_path / "b").digest != first.digest, name
        path.write_bytes(before)


def test_the_digest_samples_a_large_file_everywhere(tmp_path: Path) -> None:
    content = gguf_bytes({"general.architecture": "llama"}, [Tensor("w", (1 << 20,), 24, bytes(1 << 20))])
    path = tmp_path / "large.gguf"
    path.write_bytes(content)
    digest, seen = look(path).digest, 0
    for eighth in range(8):
        start = len(content) - (1 << 20) + (eighth << 17)
        path.write_bytes(content[:start] + b"\x01" * (1 << 17) + content[start + (1 << 17) :])
        seen += look(path).digest != digest
    assert seen == 8
