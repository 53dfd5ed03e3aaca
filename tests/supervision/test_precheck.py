"""What is found out before an engine is started."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.models import Format, Model
from hyperllamad.store import gguf
from hyperllamad.supervision import precheck
from tests.supervision import fake


def safetensors(path: Path, *, promised: int, there: int) -> None:
    """A file with one tensor of `promised` bytes, of which `there` are there."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [promised], "data_offsets": [0, promised]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * there)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A Hugging Face directory of two shards."""
    (tmp_path / "config.json").write_text("{}")
    for number in (1, 2):
        safetensors(tmp_path / f"model-{number}.safetensors", promised=100, there=100)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def model(path: Path, format_: Format = Format.SAFETENSORS) -> Model:
    return fake.model(path.parent, "m", path=str(path), format=format_)


def test_a_file_is_read_once_while_it_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, count = gguf.read, 0

    def counted(path: Path) -> gguf.Header:
        nonlocal count
        count += 1
        return read(path)

    monkeypatch.setattr(gguf, "read", counted)
    found = fake.model(tmp_path, "m")
    for _ in range(3):
        precheck.check(found)
    assert count == 1
    Path(found.path).write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0))  # and the tensor is not there
    for _ in range(2):
        with pytest.raises(LoadFailedError):
            precheck.check(found)
    assert count == 3


def test_whole_models_pass(directory: Path, tmp_path: Path) -> None:
    precheck.check(model(directory))
    (directory / "model.safetensors.index.json").unlink()
    precheck.check(model(directory))
    precheck.check(fake.model(tmp_path, "m"))


def test_a_cut_off_gguf_is_refused(tmp_path: Path) -> None:
    whole = fake.model(tmp_path, "m")
    name = b"token_embd.weight"
    tensor = struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, 1024, 0, 0)  # 1024 numbers of F32
    Path(whole.path).write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor + b"\0" * 100)
    with pytest.raises(LoadFailedError, match="is truncated"):
        precheck.check(whole)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    wrong = fake.model(tmp_path, "m")
    Path(wrong.path).write_bytes(b"PK\3\4" + b"\0" * 100)
    with pytest.raises(LoadFailedError, match="not a GGUF file"):
        precheck.check(wrong)


@pytest.mark.parametrize("damage", ["config", "shard", "short", "index", "nested", "name", "empty"])
def test_a_damaged_directory_is_refused(directory: Path, damage: str) -> None:
    def index(shard: str) -> None:
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))

    def weights_gone() -> None:
        for path in directory.glob("model*"):
            path.unlink()

    damages: dict[str, tuple[Any, str]] = {
        "config": ((directory / "config.json").unlink, "no config.json"),
        "shard": ((directory / "model-2.safetensors").unlink, r"model-2\.safetensors does not exist"),
        "short": (lambda: safetensors(directory / "model-2.safetensors", promised=100, there=99), "is truncated"),
        "index": (lambda: (directory / "model.safetensors.index.json").write_text("{"), "cannot be understood"),
        "nested": (
            lambda: (directory / "model.safetensors.index.json").write_text("[" * 100_000),
            "cannot be understood",
        ),
        "name": (lambda: index("x" * 300), "x{300} (cannot be read: File name too long|does not exist)"),
        "empty": (weights_gone, "has no weights"),
    }
    act, sentence = damages[damage]
    act()
    with pytest.raises(LoadFailedError, match=sentence):
        precheck.check(model(directory))


def test_what_may_not_be_read_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # root may read everything
    with pytest.raises(LoadFailedError, match="may not be read"):
        precheck.check(model(directory))
