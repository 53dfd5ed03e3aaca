"""Power cuts where whole files are put in place: what has its own name has all its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperllamad.store import blobs, fetching, staging
from hyperllamad.store.choosing import RemoteFile
from hyperllamad.store.fetch_wire import Origin, Part, Request
from tests.store.power import Power, PowerCutError

CONTENT = bytes(range(256)) * 40


def cut_everywhere(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], found: Callable[[Path], Path]
) -> None:
    """At every change to the disk in turn: the file that should come is there whole, or not at all."""
    power = Power(monkeypatch, root)
    seen, number = set(), 0
    while True:
        number += 1
        directory = root / str(number)
        directory.mkdir()
        power.cut_at(number)
        try:
            change(directory)
            break
        except PowerCutError:
            power.lose()
        finally:
            power.cut_at(0)
        path = found(directory)
        assert not path.exists() or path.read_bytes() == CONTENT, number
        seen.add(path.exists())
    assert found(directory).read_bytes() == CONTENT
    assert seen == {True, False}


def test_a_staged_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(root: Path) -> None:
        with staging.stage(root / "m", replace=True) as work:
            (work / "deep").mkdir()
            (work / "deep" / "file").write_bytes(CONTENT)

    cut_everywhere(tmp_path, monkeypatch, build, lambda root: root / "m" / "deep" / "file")


def test_an_uploaded_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def upload(root: Path) -> None:
        with blobs._temporary(root / "sha256-x") as (file, temporary):
            file.write(CONTENT)
            blobs._finish(file, temporary, root / "sha256-x")

    cut_everywhere(tmp_path, monkeypatch, upload, lambda root: root / "sha256-x")


def test_a_fetched_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only of a finished pull: a file with its own name is not looked at again by the next one."""
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    file = RemoteFile("m.gguf", len(CONTENT), "", sha256)
    origin = Origin(files=(Part(path=file.path, size=file.size, check=f"sha256:{sha256}"),))
    request = Request(name="m", repository="o/r", target="", store="")

    def attempt(_: object, __: RemoteFile, partial: Path) -> None:
        partial.parent.mkdir(exist_ok=True)
        partial.write_bytes(CONTENT)

    monkeypatch.setattr(fetching._Fetch, "_attempt", attempt)

    def fetch(root: Path) -> None:
        fetching._Fetch(request, origin, (file,), root, lambda _: None)._fetch_one(0)

    cut_everywhere(tmp_path, monkeypatch, fetch, lambda root: root / "m.gguf")
