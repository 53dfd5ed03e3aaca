"""Directories that appear whole or not at all."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.store.staging import stage


def test_it_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "m"
    with stage(target) as work:
        (work / "a").write_text("a")
        assert not target.exists()
        assert work.parent == target.parent
        assert work.name.startswith(".")
    assert [path.name for path in target.parent.iterdir()] == ["m"]
    assert (target / "a").read_text() == "a"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_remains_of_a_failure(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), stage(tmp_path / "m") as work:
        (work / "a").mkdir()
        (work / "a" / "b").write_text("b")
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_attempt_left_is_removed(tmp_path: Path) -> None:
    with stage(tmp_path / "m") as work:
        name = work.name
    (tmp_path / "m").rename(tmp_path / name)
    (tmp_path / name / "directory").mkdir()
    (tmp_path / name / "directory" / "half").write_text("half")
    (tmp_path / name / "link").symlink_to(tmp_path)
    (tmp_path / name / "file").write_text("half")
    with stage(tmp_path / "m") as work:
        assert list(work.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_an_existing_target_stays(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine").write_text("mine")
    with pytest.raises(LoadFailedError, match="exists already"), stage(tmp_path / "m"):
        raise AssertionError
    assert (tmp_path / "m" / "mine").read_text() == "mine"


def test_two_at_once(tmp_path: Path) -> None:
    with stage(tmp_path / "m") as work:
        (work / "a").write_text("a")
        with pytest.raises(LoadFailedError, match="another process is writing"), stage(tmp_path / "m"):
            raise AssertionError
        assert (work / "a").exists()
    assert (tmp_path / "m" / "a").exists()


def test_the_other_finishes_between_our_open_and_our_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the directory we hold has become the result: it must not be emptied."""
    work = tmp_path / ".m.partial"
    work.mkdir()
    (work / "result").write_text("whole")
    flock = fcntl.flock

    def late(handle: int, operation: int) -> None:
        work.rename(tmp_path / "m")
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(LoadFailedError, match="another process is writing"), stage(tmp_path / "m"):
        raise AssertionError
    assert (tmp_path / "m" / "result").read_text() == "whole"


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LoadFailedError, match="cannot be written: Not a directory"), stage(tmp_path / "file" / "m"):
        raise AssertionError
    with pytest.raises(LoadFailedError, match="cannot be written: No space left"), stage(tmp_path / "m"):
        raise OSError(28, os.strerror(28))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
