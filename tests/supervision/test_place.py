"""The directory of a child."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.engines.base import Host
from hyperllamad.supervision import place, procfs
from hyperllamad.supervision.procfs import Identity


def test_it_is_for_our_user_only_and_goes_whole(runtime: Path) -> None:
    where = place.make(runtime, runtime / "cache" / "vllm", Host())
    directory = place.directory(where)
    for one in (directory, Path(where.tmp), Path(where.cwd), Path(where.cache)):
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
    assert directory.parent == place.root(runtime)
    (Path(where.tmp) / "sub").mkdir()
    place.remove(directory)
    assert not directory.exists()
    assert Path(where.cache).exists()


def test_two_are_apart_and_share_the_cache(runtime: Path) -> None:
    one, two = (place.make(runtime, runtime / "cache", Host()) for _ in range(2))
    assert one.socket != two.socket
    assert one.cache == two.cache


STAND = place.Stand("m", ("m:latest",), "d" * 64, "s" * 12, None)


def test_the_leader_is_written_down(runtime: Path) -> None:
    where = place.make(runtime, runtime / "cache", Host())
    leader = place.read(place.directory(where))
    assert leader == place.Leader(procfs.boot_id(), procfs.myself())
    place.record(where, Identity(7, 8), Identity(6, 7))
    leader = place.read(place.directory(where))
    assert leader is not None
    assert (leader.engine, leader.guard, leader.stand) == (Identity(7, 8), Identity(6, 7), None)
    place.note(where, STAND)
    place.record(where, Identity(9, 10), Identity(6, 7))
    leader = place.read(place.directory(where))
    assert leader is not None
    assert (leader.engine, leader.stand) == (Identity(9, 10), STAND)


def test_a_leader_cut_at_any_byte_is_whole_or_none(runtime: Path) -> None:
    """Whatever a full disk or a power cut leaves: nobody is taken for another, and the next start copes."""
    where = place.make(runtime, runtime / "cache", Host())
    place.record(where, Identity(7, 8), Identity(6, 7))
    place.note(where, STAND)
    file = place.directory(where) / "leader"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert place.read(place.directory(where)) is None
    file.write_bytes(whole)
    leader = place.read(place.directory(where))
    assert leader is not None
    assert leader.stand == STAND


def test_a_write_that_is_cut_off_leaves_the_file_before(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = place.make(runtime, runtime / "cache", Host())
    place.record(where, Identity(7, 8), None)
    before = place.read(place.directory(where))
    encoded = place.msgspec.json.encode(place.Leader(procfs.boot_id(), procfs.myself(), Identity(9, 9)))

    for length in range(len(encoded)):

        def cut(self: Path, _data: bytes, *, length: int = length) -> int:
            with self.open("wb") as half:
                half.write(encoded[:length])
            raise OSError(28, "No space left on device", str(self))

        monkeypatch.setattr(Path, "write_bytes", cut)
        with pytest.raises(OSError, match="No space"):
            place.record(where, Identity(9, 9), None)
        monkeypatch.undo()
        assert place.read(place.directory(where)) == before


def test_half_a_place_is_taken_away_again(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "leader")

    monkeypatch.setattr(place, "_write", full)
    with pytest.raises(LoadFailedError, match="No space left"):
        place.make(runtime, runtime / "cache", Host())
    assert list(place.root(runtime).iterdir()) == []


def test_a_path_too_long_for_a_socket_is_refused_with_advice(tmp_path: Path) -> None:
    longest = 107 - len("/e/12345678/e.sock")
    fits = tmp_path / ("x" * (longest - len(str(tmp_path)) - 1))
    assert len(place.make(fits, tmp_path / "cache", Host()).socket) == 107
    with pytest.raises(LoadFailedError, match=r"by 1 bytes.*paths.runtime"):
        place.make(Path(f"{fits}x"), tmp_path / "cache", Host())


def test_a_place_that_cannot_be_made_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LoadFailedError, match=r"file.*Not a directory"):
        place.make(tmp_path / "file", tmp_path / "cache", Host())


def test_the_directory_of_a_place_is_one_path(runtime: Path) -> None:
    """Python keeps the parts of every new path in a table that only grows until it is copied."""
    where = place.make(runtime, runtime / "cache", Host())
    assert place.directory(where) is place.directory(where)
    assert place.directory(where) == Path(where.socket).parent
