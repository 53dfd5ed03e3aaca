"""Where engines keep what they compiled, and how it came there from where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperllamad.engines import compiled
from tests.daemon import daemon


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A cache directory as releases before 0.2 left it, with two homes."""
    for home in ("max-1-cpu", "vllm-1-cuda"):
        (tmp_path / "cache" / "engines" / home / "deep").mkdir(parents=True)
        (tmp_path / "cache" / "engines" / home / "deep" / "kernel").write_text(home)
    return tmp_path / "cache"


def test_what_was_compiled_before_is_used_again(old: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert compiled.fetch(old, state) == (("max-1-cpu", "vllm-1-cuda"), ())
    assert (compiled.of(state, "vllm-1-cuda") / "deep" / "kernel").read_text() == "vllm-1-cuda"
    assert list(old.iterdir()) == []
    assert compiled.fetch(old, state) == ((), ())


def test_what_was_compiled_anew_is_not_lost_to_what_is_older(old: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    newer = compiled.of(state, "max-1-cpu") / "kernel"
    newer.parent.mkdir(parents=True)
    newer.write_text("newer")
    assert compiled.fetch(old, state) == (("vllm-1-cuda",), ("max-1-cpu",))
    assert newer.read_text() == "newer"
    assert (old / "engines" / "max-1-cpu" / "deep" / "kernel").exists()


def test_what_cannot_be_moved_is_named(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(_: Path, target: Path) -> Path:
        raise OSError(18, "Invalid cross-device link", str(target))

    monkeypatch.setattr(Path, "rename", across)
    assert compiled.fetch(old, tmp_path / "state") == ((), ("max-1-cpu", "vllm-1-cuda"))
    assert (old / "engines" / "vllm-1-cuda" / "deep" / "kernel").exists()


def test_a_link_to_them_is_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "compiled").symlink_to(tmp_path / "disk")
    assert compiled.of(tmp_path / "state", "vllm-1-cuda") == tmp_path / "disk" / "vllm-1-cuda"


def test_nothing_was_there(tmp_path: Path) -> None:
    assert compiled.fetch(tmp_path / "cache", tmp_path / "state") == ((), ())
    assert not (tmp_path / "state").exists()


def test_what_a_home_compiled_goes_alone(tmp_path: Path) -> None:
    for home in ("vllm-1-cpu", "vllm-2-cpu"):
        (compiled.of(tmp_path, home) / "torch").mkdir(parents=True)
    compiled.remove(tmp_path, "vllm-1-cpu")
    compiled.remove(tmp_path, "vllm-1-cpu")
    assert [path.name for path in (tmp_path / "compiled").iterdir()] == ["vllm-2-cpu"]


def test_a_daemon_fetches_it_at_its_start_and_says_so(tmp_path: Path) -> None:
    with daemon({}, engines=tmp_path / "engines") as running:
        running.stop()
        state, before = running.root / "state", running.root / "cache" / "engines"
        (state / "compiled").unlink()  # a link to what all tests share
        for home in ("max-1-cpu", "vllm-1-cuda"):
            (before / home).mkdir(parents=True)
        (compiled.of(state, "max-1-cpu") / "kernel").mkdir(parents=True)
        running.start()
        assert sorted(path.name for path in (state / "compiled").iterdir()) == ["max-1-cpu", "vllm-1-cuda"]
        said = running.log.read_text()
    assert "lies in the state directory now homes=vllm-1-cuda" in said
    assert f"can be deleted directory={before} homes=max-1-cpu" in said
