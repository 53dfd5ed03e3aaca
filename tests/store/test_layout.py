"""From directories to names."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.models import Format
from hyperllamad.store import layout
from tests.store.files import sharded_directory, small_directory, small_gguf


def gguf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_gguf())
    return path


def names(root: Path, depth: int = layout.NAME_DEPTH) -> dict[str, Path]:
    return {name.short: path.relative_to(root) for name, path in layout.walk(root, depth).models.values()}


def test_the_store_as_documented(tmp_path: Path) -> None:
    gguf(tmp_path / "smollm2@135m" / "anything.gguf")
    small_directory(tmp_path / "qwen3@8b-fp8")
    gguf(tmp_path / "mistral.gguf")
    gguf(tmp_path / "phi@mini.gguf")
    gguf(tmp_path / "hf.co" / "org" / "repo@q8" / "x.gguf")
    gguf(tmp_path / "someone" / "Mixed.gguf")
    gguf(tmp_path / "split" / "a-00001-of-00002.gguf")
    gguf(tmp_path / "split" / "a-00002-of-00002.gguf")
    gguf(tmp_path / "bare-00001-of-00002.gguf")
    gguf(tmp_path / "bare-00002-of-00002.gguf")
    gguf(tmp_path / ".smollm2@135m.partial" / "half.gguf")
    gguf(tmp_path / "mmproj-vision.gguf")
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").write_text("hello")
    assert names(tmp_path) == {
        "bare:latest": Path("bare-00001-of-00002.gguf"),
        "hf.co/org/repo:q8": Path("hf.co/org/repo@q8"),
        "mistral:latest": Path("mistral.gguf"),
        "phi:mini": Path("phi@mini.gguf"),
        "qwen3:8b-fp8": Path("qwen3@8b-fp8"),
        "smollm2:135m": Path("smollm2@135m"),
        "someone:latest": Path("someone"),  # one file: the directory is the model's own
        "split:latest": Path("split"),
    }
    assert layout.walk(tmp_path, layout.NAME_DEPTH).problems == []


def test_depth_is_bounded(tmp_path: Path) -> None:
    gguf(tmp_path / "a" / "b" / "c" / "m.gguf")
    gguf(tmp_path / "a" / "b" / "d" / "e" / "m.gguf")
    assert list(names(tmp_path)) == ["a/b/c:latest"]
    assert names(tmp_path, 1) == {}
    (tmp_path / "loop").symlink_to(tmp_path)
    assert "a/b/c:latest" in names(tmp_path)


def test_names_that_cannot_be(tmp_path: Path) -> None:
    gguf(tmp_path / "My Model (1).gguf")
    gguf(tmp_path / "a@b@c" / "m.gguf")
    gguf(tmp_path / "good.gguf")
    tree = layout.walk(tmp_path, 1)
    assert [name.short for name, _ in tree.models.values()] == ["good:latest"]
    assert sorted((problem.name, problem.sentence) for problem in tree.problems) == [
        (name, "its file name cannot be a model's name: rename it, or name it in a file of models.d")
        for name in ("My Model (1)", "a:b@c")
    ]


def test_two_of_one_name(tmp_path: Path) -> None:
    gguf(tmp_path / "M.gguf")
    gguf(tmp_path / "m" / "x.gguf")
    tree = layout.walk(tmp_path, 1)
    assert len(tree.models) == 1
    (problem,) = tree.problems
    assert (problem.name, problem.sentence) == (
        "m:latest",
        f"{tmp_path / 'M.gguf'} has the same name and is used instead",
    )


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    tree = layout.walk(tmp_path / "gone", 1)
    assert (tree.models, tree.problems, tree.branches) == ({}, [], [tmp_path / "gone"])
    (tmp_path / "file").write_text("")
    (problem,) = layout.walk(tmp_path / "file", 1).problems
    assert problem.sentence == "the directory cannot be read: Not a directory"


def test_locate_says_what_is_wrong(tmp_path: Path) -> None:
    def says(path: Path) -> str:
        with pytest.raises(LoadFailedError) as caught:
            layout.locate(path)
        return caught.value.message.replace(str(tmp_path), "*")

    assert says(tmp_path / "gone") == "*/gone does not exist"
    assert says(Path("a\0b")).endswith(("does not exist", "embedded null byte"))
    assert says(tmp_path) == "* holds no model"
    gguf(tmp_path / "two" / "a.gguf")
    gguf(tmp_path / "two" / "b.gguf")
    assert says(tmp_path / "two") == "*/two holds several models (a.gguf, b.gguf)"
    gguf(tmp_path / "part" / "a-00002-of-00002.gguf")
    assert says(tmp_path / "part") == "*/part/a-00001-of-00002.gguf is missing: the model comes in 2 parts"
    (small_directory(tmp_path / "bare") / "config.json").unlink()
    assert says(tmp_path / "bare") == "*/bare holds .safetensors files but no config.json"


def test_files_that_matter(tmp_path: Path) -> None:
    path = sharded_directory(tmp_path / "m", 1)
    (path / "README.md").write_text("")
    (path / "LICENSE").write_text("")
    found = layout.locate(path)
    assert (found.format, found.path, found.directory, found.license) == (
        Format.SAFETENSORS,
        path,
        path,
        path / "LICENSE",
    )
    assert [file.name for file in found.files] == [
        "config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
    ]


def test_what_a_directory_with_both_is(tmp_path: Path) -> None:
    """GGUF repositories often keep the config.json of the model they were made from."""
    (tmp_path / "config.json").write_text("{}")
    file = gguf(tmp_path / "m.gguf")
    assert layout.locate(tmp_path).path == file
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert layout.locate(tmp_path).format is Format.SAFETENSORS
