"""Installing an engine, with wheels made here and a pip that has no network; and everything that can go wrong."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from hyperllamad import packages
from hyperllamad.config.tables import EngineTable
from hyperllamad.core.errors import InstallFailedError
from hyperllamad.engines import homes as homes_module
from hyperllamad.engines import install as installer
from hyperllamad.engines.base import Home, Recipe
from hyperllamad.engines.homes import FILE, Homes
from hyperllamad.packages import Pip, Progress
from tests.engines.wheels import make_wheel

GB = 10**9


def engine(version: str = "1.0", **recipe: Any) -> Any:
    """A made-up engine, under the name of a real one because only those may have homes."""
    made = {"requirements": ("tiny-engine=={version}",), "disk": 1000, "self_test": ("-c", "import tiny_engine")}
    return SimpleNamespace(name="llama_cpp", title="Tiny", version=version, variants={"cpu": Recipe(**(made | recipe))})


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real virtual environment, copied by every test: making one takes seconds."""
    directory = tmp_path_factory.mktemp("environment") / "home"
    anyio.run(packages.create_environment, directory)
    return directory


@pytest.fixture(autouse=True)
def wheels(tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "wheels"
    directory.mkdir()
    for version in ("1.0", "2.0"):
        make_wheel(directory, "tiny-engine", version, requires=("tiny-part",), source=f"version = {version!r}")
        make_wheel(directory, "tiny-part", version)
    make_wheel(directory, "tiny-engine", "3.0", source="raise RuntimeError('no such CPU')")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(directory), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)

    async def copied(target: Path) -> Path:
        await anyio.to_thread.run_sync(lambda: shutil.copytree(environment, target, symlinks=True))
        return target / "bin" / "python"

    async def as_it_is(_: Pip) -> None:
        """test_packages.py has what it does."""

    monkeypatch.setenv("PATH", without_uv())
    monkeypatch.setattr(packages, "create_environment", copied)
    monkeypatch.setattr(Pip, "upgrade", as_it_is)
    monkeypatch.setattr(installer, "LOCKS", tmp_path / "locks")
    return directory


def without_uv() -> str:
    """The PATH less the directories that hold a uv."""
    return os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if not (Path(part) / "uv").exists())


@pytest.fixture
def homes(tmp_path: Path) -> Homes:
    return Homes(tmp_path / "engines", {})


def left(homes: Homes) -> set[str]:
    return {path.name for path in homes.root.iterdir()} if homes.root.exists() else set()


def has(home: Home, module: str) -> bool:
    return subprocess.run([home.python, "-c", f"import {module}"], stderr=subprocess.DEVNULL).returncode == 0


async def install(homes: Homes, made: Any, table: EngineTable = EngineTable(), **options: Any) -> Home:  # noqa: B008
    return await installer.install(made, homes=homes, table=table, **options)


async def test_a_home_is_filled_tried_and_put_to_use(homes: Homes) -> None:
    steps: list[Progress] = []
    home = await install(homes, engine(remove=("tiny-part",)), on_progress=steps.append)
    assert (home.id, home.version, home.variant) == ("llama_cpp-1.0-cpu", "1.0", "cpu")
    assert home.path == str(homes.root / home.id)
    assert home.size > 1_000_000
    assert home.installed_at > 0
    assert homes.current("llama_cpp") == home == Homes(homes.root, {}).current("llama_cpp")
    assert has(home, "tiny_engine")
    assert not has(home, "tiny_part")
    assert left(homes) == {home.id, "current.json"}
    assert not (Path(home.path) / "downloads").exists()
    phases = list(dict.fromkeys(step.phase for step in steps))
    assert phases == ["checking", "creating", "downloading", "installing", "testing", "done"]
    assert any(step.detail.startswith("tiny_engine-1.0") for step in steps)


async def test_versions_stand_side_by_side_and_the_last_is_in_use(homes: Homes) -> None:
    one = await install(homes, engine())
    two = await install(homes, engine(), version="2.0")
    assert (homes.current("llama_cpp"), set(homes.all())) == (two, {one, two})
    steps: list[Progress] = []
    again = await install(homes, engine(), on_progress=steps.append)
    assert (again, homes.current("llama_cpp")) == (one, one)
    assert [step.phase for step in steps] == ["checking", "done"]


async def test_the_configuration_states_version_and_variant(homes: Homes) -> None:
    table = EngineTable(version="2.0", variant="cpu")
    assert (await install(homes, engine(), table)).version == "2.0"
    assert (await install(homes, engine(), table, version="1.0")).version == "1.0"
    apart = engine("9.9")
    apart.variants["cpu"] = dataclasses.replace(apart.variants["cpu"], version="1.0")
    assert (await install(homes, apart)).version == "1.0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "rocm"}, 'Tiny has no variant "rocm"'),
        ({"version": "../../etc"}, '"../../etc" is no version'),
        ({"version": "1.0 --index-url=x"}, "is no version"),
    ],
)
async def test_what_cannot_be_asked_for(homes: Homes, options: dict[str, str], message: str) -> None:
    with pytest.raises(InstallFailedError, match=message):
        await install(homes, engine(), **options)
    assert left(homes) == set()


async def test_room_is_checked_before_the_first_byte(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * GB))
    steps: list[Progress] = []
    with pytest.raises(InstallFailedError) as caught:
        await install(homes, engine(disk=5 * GB), on_progress=steps.append)
    assert caught.value.message == (f"Tiny needs 8.0 GB in {homes.root} while it is installed, 2.0 GB are free")
    assert [step.phase for step in steps] == ["checking"]
    assert left(homes) == set()


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("9.9", r"Tiny 9\.9 was not installed: the package index has no tiny-engine==9\.9 for this Python"),
        ("3.0", r"Tiny 3\.0 was not installed: it does not run here: RuntimeError: no such CPU"),
    ],
)
async def test_a_failure_leaves_the_old_home_in_use_and_nothing_else(homes: Homes, version: str, message: str) -> None:
    old = await install(homes, engine())
    with pytest.raises(InstallFailedError, match=message):
        await install(homes, engine(), version=version)
    assert homes.current("llama_cpp") == old
    assert has(old, "tiny_engine")
    assert left(homes) == {old.id, "current.json"}


async def test_a_full_disk_at_the_very_end_is_a_failure_like_any_other(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "home.json")

    monkeypatch.setattr(homes_module, "write_atomically", full)
    with pytest.raises(InstallFailedError, match=r"Tiny 1\.0 was not installed: home\.json: No space left on device"):
        await install(homes, engine())
    assert left(homes) == set()


async def test_a_full_disk_behind_the_end_costs_a_second_try_that_takes_no_time(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = homes_module.write_atomically

    def full(path: Path, content: bytes) -> None:
        if path.name == homes_module.CURRENT:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(homes_module, "write_atomically", full)
        for _ in range(2):  # the home is there already the second time
            with pytest.raises(InstallFailedError, match=r"current.json: No space left on device") as failure:
                await install(homes, engine())
            assert "cannot be made the one in use" in failure.value.message
            assert "install it again" in failure.value.hint
    assert await install(homes, engine()) == homes.current("llama_cpp")


async def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InstallFailedError, match=r"file/engines cannot be written: Not a directory"):
        await install(Homes(tmp_path / "file" / "engines", {}), engine())


HANG = "import os, pathlib, time; pathlib.Path(os.environ['STARTED']).write_text(str(os.getpid())); time.sleep(600)"


async def wait_for(fact: Callable[[], bool]) -> None:
    with anyio.fail_after(40):
        while not fact():
            await anyio.sleep(0.02)


def started(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0


@pytest.mark.parametrize("phase", ["creating", "downloading", "installing", "testing"])
async def test_cancelling_leaves_nothing_behind(
    phase: str, homes: Homes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARTED", str(tmp_path / "pid"))
    old = await install(homes, engine())
    reached = anyio.Event()

    def on_progress(step: Progress) -> None:
        if step.phase == phase:
            reached.set()

    async with anyio.create_task_group() as tasks:
        hanging = engine(self_test=("-c", HANG))
        tasks.start_soon(lambda: install(homes, hanging, version="2.0", on_progress=on_progress))
        await reached.wait()
        if phase == "testing":
            await wait_for(lambda: started(tmp_path / "pid") > 0)
        tasks.cancel_scope.cancel()
    assert homes.current("llama_cpp") == old
    assert left(homes) == {old.id, "current.json"}
    if phase == "testing":
        assert not Path(f"/proc/{started(tmp_path / 'pid')}").exists()


KILLED = """
import sys, anyio
from pathlib import Path
from hyperllamad.config.tables import EngineTable
from hyperllamad.engines import install
from hyperllamad.engines.homes import Homes
from tests.engines.test_install import HANG, engine
homes = Homes(Path(sys.argv[1]), {})
made = engine(self_test=("-c", HANG))
anyio.run(lambda: install.install(made, version="2.0", homes=homes, table=EngineTable()))
"""


async def test_an_installer_killed_half_way_leaves_a_half_home_that_the_next_one_removes(
    homes: Homes, tmp_path: Path
) -> None:
    old = await install(homes, engine())
    note = tmp_path / "pid"
    env = os.environ | {"STARTED": str(note)}
    with subprocess.Popen([sys.executable, "-c", KILLED, str(homes.root)], env=env) as child:
        await wait_for(lambda: started(note) > 0)
        assert homes.sweep() == ()  # it is being filled
        with pytest.raises(InstallFailedError, match=r"llama_cpp-2\.0-cpu is being installed or removed already"):
            await install(homes, engine(), version="2.0")
        child.kill()
    os.kill(started(note), signal.SIGKILL)
    assert (homes.root / "llama_cpp-2.0-cpu").exists()
    assert not (homes.root / "llama_cpp-2.0-cpu" / FILE).exists()
    assert homes.current("llama_cpp") == old
    assert homes.all() == (old,)
    two = await install(homes, engine(), version="2.0")
    assert (homes.current("llama_cpp"), has(two, "tiny_engine")) == (two, True)


async def test_two_at_once_are_one_too_many(homes: Homes) -> None:
    refused: list[str] = []

    async def one() -> None:
        try:
            await install(homes, engine())
        except InstallFailedError as failure:
            refused.append(failure.message)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(one)
    assert refused == ["llama_cpp-1.0-cpu is being installed or removed already"]
    assert len(homes.all()) == 1


async def test_without_a_gpu_the_cpu_variant_is_taken(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine()
    made.variants["cuda"] = Recipe(requirements=("tiny-engine=={version}",), version="2.0", disk=1000)
    monkeypatch.setattr(installer.host, "device", lambda: "cpu")
    assert (await install(homes, made)).id == "llama_cpp-1.0-cpu"
    monkeypatch.setattr(installer.host, "device", lambda: "cuda")
    assert (await install(homes, made)).id == "llama_cpp-2.0-cuda"
