"""The directory of engine homes."""

from __future__ import annotations

import dataclasses
import fcntl
import multiprocessing
import os
from pathlib import Path

import pytest

from hyperllamad.config.tables import EngineTable
from hyperllamad.core.errors import InstallFailedError
from hyperllamad.engines.base import Home
from hyperllamad.engines.homes import CURRENT, FILE, Homes
from tests.engines import samples


@pytest.fixture(autouse=True)
def _nothing_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def make(homes: Homes, home: Home, *, at: float = 1.0) -> Home:
    directory = homes.root / home.id
    (directory / "bin").mkdir(parents=True)
    (directory / "bin" / "python").symlink_to("/bin/sh")
    whole = dataclasses.replace(home, path=str(directory), python=str(directory / "bin" / "python"), installed_at=at)
    homes.finish(whole)
    return whole


def test_an_empty_machine_has_no_homes(tmp_path: Path) -> None:
    homes = Homes(tmp_path / "engines", {})
    assert (homes.all(), homes.in_use(), homes.current("vllm"), homes.sweep()) == ((), (), None, ())
    assert not (tmp_path / "engines").exists()


def test_the_newest_home_is_used_until_another_is_recorded(tmp_path: Path) -> None:
    homes = Homes(tmp_path, {})
    old = make(homes, samples.home("vllm", version="1.0"), at=1)
    assert homes.current("vllm") == old
    new = make(homes, samples.home("vllm", version="2.0"), at=2)
    assert homes.current("vllm") == new
    homes.use(old)
    assert homes.all() == (old, new)
    assert Homes(tmp_path, {}).current("vllm") == old
    llama = make(homes, samples.home("llama_cpp"))
    assert homes.all() == (llama, old, new)
    assert homes.in_use() == (llama, old)


def test_the_configuration_wins_over_what_is_recorded(tmp_path: Path) -> None:
    one, two = (make(Homes(tmp_path, {}), samples.home("vllm", version=v)) for v in ("1.0", "2.0"))
    gpu = make(Homes(tmp_path, {}), samples.home("vllm", "cuda", version="2.0"))
    Homes(tmp_path, {}).use(two)

    def current(table: EngineTable) -> Home | None:
        return Homes(tmp_path, {"vllm": table}).current("vllm")

    assert current(EngineTable()) == two
    assert current(EngineTable(version="1.0")) == one
    assert current(EngineTable(variant="cuda")) == gpu
    assert current(EngineTable(version="3.0")) is None
    assert current(EngineTable(enabled=False)) is None
    disabled = Homes(tmp_path, {"vllm": EngineTable(enabled=False)})
    assert (disabled.all(), disabled.installed(two.id), disabled.installed("vllm-3.0-cpu")) == ((), two, None)


def test_who_asks_again_gets_the_same_until_something_changes(tmp_path: Path) -> None:
    homes = Homes(tmp_path, {})
    old, new = (make(homes, samples.home("vllm", version=version), at=float(version)) for version in ("1.0", "2.0"))
    first = homes.in_use()
    assert first == (new,)
    assert homes.in_use() is first
    homes.configure({"vllm": EngineTable(version="1.0")})
    assert homes.in_use() == (old,)
    homes.configure({"vllm": EngineTable(enabled=False)})
    assert (homes.in_use(), homes.all()) == ((), ())
    homes.configure({})
    assert homes.in_use() == (new,)
    homes.use(old)
    assert homes.in_use() == (old,)


def test_what_is_no_home_is_not_seen(tmp_path: Path) -> None:
    homes = Homes(tmp_path, {})
    (tmp_path / "vllm-9.0-cpu").mkdir()  # half
    (tmp_path / "max-1.0-cpu").mkdir()
    (tmp_path / "max-1.0-cpu" / FILE).write_text("{ no json")
    (tmp_path / "somebody else's").mkdir()
    moved = make(homes, samples.home("vllm", version="1.0"))
    (tmp_path / moved.id).rename(tmp_path / "vllm-7.0-cpu")
    broken = make(homes, samples.home("vllm", version="2.0"))
    (tmp_path / broken.id / "bin" / "python").unlink()
    (tmp_path / broken.id / "bin" / "python").symlink_to("/nowhere/python3.9")
    whole = make(homes, samples.home("vllm", version="3.0"))
    assert homes.all() == (whole,)


def test_only_half_homes_are_swept(tmp_path: Path) -> None:
    homes = Homes(tmp_path, {})
    whole = make(homes, samples.home("vllm"))
    (tmp_path / "vllm-9.0-cpu" / "lib").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    assert homes.sweep() == ("vllm-9.0-cpu",)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", whole.id]


def test_a_home_that_is_being_filled_is_left_alone(tmp_path: Path) -> None:
    homes = Homes(tmp_path, {})
    with homes.claim("vllm-9.0-cpu") as directory:
        directory.mkdir()
        assert Homes(tmp_path, {}).sweep() == ()
        with pytest.raises(InstallFailedError, match=r"vllm-9\.0-cpu is being installed or removed already"):
            Homes(tmp_path, {}).claim("vllm-9.0-cpu").__enter__()
    assert homes.sweep() == ("vllm-9.0-cpu",)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_file_went_away_before_it_was_held_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last holder deletes the file; who had it open by then would hold what nobody else can see."""
    homes = Homes(tmp_path, {})
    whole = fcntl.flock

    def late(file: int, operation: int) -> None:
        (tmp_path / ".vllm-9.0-cpu.lock").unlink()
        whole(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(InstallFailedError, match="already"), homes.claim("vllm-9.0-cpu"):
        pytest.fail("it was held")
    monkeypatch.undo()
    with homes.claim("vllm-9.0-cpu"):
        assert [path.name for path in tmp_path.iterdir()] == [".vllm-9.0-cpu.lock"]


def _die_holding(root: Path) -> None:
    with Homes(root, {}).claim("vllm-9.0-cpu") as directory:
        directory.mkdir()
        os.kill(os.getpid(), 9)


def test_a_killed_installer_holds_nothing(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_die_holding, args=(tmp_path,))
    child.start()
    child.join()
    assert (child.exitcode, (tmp_path / "vllm-9.0-cpu").exists()) == (-9, True)
    assert Homes(tmp_path, {}).sweep() == ("vllm-9.0-cpu",)


def test_removing(tmp_path: Path) -> None:
    homes = Homes(tmp_path, {})
    one, two = (make(homes, samples.home("vllm", version=v), at=float(v)) for v in ("1.0", "2.0"))
    homes.use(one)
    with pytest.raises(InstallFailedError, match=r"vllm-1\.0-cpu is in use") as caught:
        homes.remove(one)
    assert "vllm-2.0-cpu would take its place" in caught.value.hint
    homes.remove(two)
    assert homes.all() == (one,)
    homes.remove(one, force=True)
    assert homes.all() == ()
    assert [p.name for p in tmp_path.iterdir()] == [CURRENT]
    assert "vllm" not in (tmp_path / CURRENT).read_text()


def test_a_program_of_the_system_is_a_home_that_cannot_be_removed(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    homes = Homes(tmp_path / "engines", {})
    system = Home(id="llama_cpp-system", engine="llama_cpp", version="", variant="system", path=str(program))
    assert homes.all() == (system,)
    wheel = make(homes, samples.home("llama_cpp"))
    assert homes.current("llama_cpp") == system
    homes.use(wheel)
    assert homes.all() == (wheel, system)
    with pytest.raises(InstallFailedError, match="came with the system"):
        homes.remove(system, force=True)


def test_the_disk_is_read_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = Homes(tmp_path, {})
    make(homes, samples.home("vllm"))
    reads = 0
    scan = homes._scan

    def counted() -> tuple[Home, ...]:
        nonlocal reads
        reads += 1
        return scan()

    monkeypatch.setattr(homes, "_scan", counted)
    for _ in range(10):
        homes.all()
    assert reads == 1
    Homes(tmp_path, {}).use(samples.home("vllm"))  # another process
    os.utime(tmp_path, ns=(1, 1))
    homes.all()
    assert reads == 2


def test_what_changes_while_the_disk_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread removes a home that was just read: nobody may be started there."""
    homes = Homes(tmp_path, {})
    home = make(homes, samples.home("vllm"))
    scan = homes._scan

    def meanwhile() -> tuple[Home, ...]:
        found = scan()
        if found:
            homes._hide(home, lambda: None)
        return found

    monkeypatch.setattr(homes, "_scan", meanwhile)
    homes.all()
    assert (homes.all(), homes.current("vllm")) == ((), None)


def test_what_current_says_may_be_lost(tmp_path: Path) -> None:
    homes = Homes(tmp_path, {})
    home = make(homes, samples.home("vllm"))
    (tmp_path / CURRENT).write_text("no json")
    assert homes.current("vllm") == home
