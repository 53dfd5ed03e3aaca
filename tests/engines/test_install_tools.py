"""What installs an engine: uv or pip, the same home with either, held to the same lock and its hashes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from hyperllamad.config.tables import EngineTable
from hyperllamad.core.errors import InstallFailedError
from hyperllamad.engines import lockfile
from hyperllamad.engines.base import NAMES, Home, load
from hyperllamad.engines.homes import Homes
from hyperllamad.packages import Pip, Progress
from hyperllamad.packages.uv import Uv
from tests.engines.test_install import engine, environment, has, homes, install, left, wheels, without_uv
from tests.engines.wheels import make_wheel

__all__ = ["environment", "homes", "wheels"]  # fixtures

UV = Path(sys.executable).with_name("uv")


@pytest.fixture(params=["pip", "uv"])
def tool(request: pytest.FixtureRequest, tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the two there is."""
    if request.param == "uv":
        bin_ = tmp_path / "bin"
        bin_.mkdir()
        (bin_ / "uv").symlink_to(UV)
        monkeypatch.setenv("PATH", f"{bin_}:{without_uv()}")
    return str(request.param)


def pin(wheels: Path, name: str, version: str, digest: str = "") -> str:
    wheel = wheels / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{name}=={version} \\\n    --hash=sha256:{digest}"


def lock(tmp_path: Path, *lines: str) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "llama_cpp-1.0-cpu.txt").write_text("\n".join(lines) + "\n")


def version_of(home: Home, name: str) -> str:
    source = f"from importlib.metadata import version; print(version('{name}'))"
    return subprocess.run([home.python, "-c", source], capture_output=True, text=True).stdout.strip()


async def test_a_home_is_filled_with_either(tool: str, homes: Homes) -> None:
    steps: list[Progress] = []
    home = await install(homes, engine(remove=("tiny-part",)), on_progress=steps.append)
    assert has(home, "tiny_engine")
    assert not has(home, "tiny_part")
    assert left(homes) == {home.id, "current.json"}
    phases = list(dict.fromkeys(step.phase for step in steps))
    assert phases == ["checking", "creating", "downloading", "installing", "testing", "done"]
    (said,) = [step.detail for step in steps if step.detail.startswith("with ")]
    assert said.startswith(f"with {tool}")


async def test_what_the_release_was_tried_with_is_installed(
    tool: str, homes: Homes, tmp_path: Path, wheels: Path
) -> None:
    lock(tmp_path, pin(wheels, "tiny-engine", "1.0"), pin(wheels, "tiny-part", "1.0"))
    assert version_of(await install(homes, engine()), "tiny-part") == "1.0"
    other = await install(homes, engine(), version="2.0")
    assert version_of(other, "tiny-part") == "2.0", "the lock is for exactly one version"


async def test_a_package_that_is_not_the_one_that_was_tried_ends_the_install(
    tool: str, homes: Homes, tmp_path: Path, wheels: Path
) -> None:
    lock(tmp_path, pin(wheels, "tiny-engine", "1.0"), pin(wheels, "tiny-part", "1.0", "0" * 64))
    with pytest.raises(InstallFailedError, match="a package is not the one this release was tried with"):
        await install(homes, engine())
    assert left(homes) == set()


@pytest.mark.parametrize("kind", ["missing", "short"])
async def test_a_lock_that_does_not_fit_this_python_is_left_aside(
    kind: str, tool: str, homes: Homes, tmp_path: Path, wheels: Path
) -> None:
    more = [pin(wheels, "tiny-part", "7.7", "0" * 64)] if kind == "missing" else []
    lock(tmp_path, pin(wheels, "tiny-engine", "1.0"), *more)
    steps: list[Progress] = []
    assert version_of(await install(homes, engine(), on_progress=steps.append), "tiny-part") == "2.0"
    assert any("taking what fits" in step.detail for step in steps)


async def test_constraints_of_pips_configuration_hold_beside_no_hashes_and_do_not_upset_them(
    tool: str, homes: Homes, tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "held.txt").write_text("tiny-part<=1.5\nsomething-else<3\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "held.txt"))
    assert version_of(await install(homes, engine(), version="2.0"), "tiny-part") == "1.0"
    lock(tmp_path, pin(wheels, "tiny-engine", "1.0"), pin(wheels, "tiny-part", "1.0"))
    assert version_of(await install(homes, engine()), "tiny-part") == "1.0"


async def test_what_each_python_has_a_build_of_is_held_to_its_version_alone(
    tool: str, homes: Homes, tmp_path: Path, wheels: Path
) -> None:
    lock(tmp_path, "tiny-part==1.0", pin(wheels, "tiny-engine", "1.0"))
    assert version_of(await install(homes, engine()), "tiny-part") == "1.0"


async def test_a_failure_leaves_nothing(tool: str, homes: Homes) -> None:
    with pytest.raises(InstallFailedError, match=r"the package index has no tiny-engine==9\.9 for this Python"):
        await install(homes, engine(), version="9.9")
    assert left(homes) == set()


async def test_the_index_of_the_configuration_takes_the_place_of_pips(
    tool: str, homes: Homes, tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "file:///nowhere/simple")
    for name in ("tiny-engine", "tiny-part"):
        page = tmp_path / "index" / name / "index.html"
        page.parent.mkdir(parents=True)
        files = sorted(wheels.glob(f"{name.replace('-', '_')}-*"))
        page.write_text("".join(f'<a href="{file.as_uri()}">{file.name}</a>\n' for file in files))
    home = await install(homes, engine(), EngineTable(index_url=(tmp_path / "index").as_uri()))
    assert has(home, "tiny_engine")


async def test_a_uv_that_does_not_run_is_none(homes: Homes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bin" / "uv"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{without_uv()}")
    assert has(await install(homes, engine()), "tiny_engine")


def played_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A uv that finds torch only where it is told of a backend; what it is asked is written down."""
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n'
        'case "$*" in --version) exit 0;; *--torch-backend*) ;; *)\n'
        '  echo "error: Because there is no version of torch==9.9+cpu and you require it"; exit 1;; esac\n'
        '"$4" -m pip install --no-deps tiny-engine==1.0\n'
    )
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}:{without_uv()}")
    return tmp_path / "asked"


async def test_uv_is_told_of_the_backend_where_no_torch_is_found(
    homes: Homes, tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = played_uv(tmp_path, monkeypatch)
    made = engine("4.0", torch_backend="cpu")
    home = await install(homes, made, EngineTable(extra_index_urls=("https://more.example",)))
    version, plain, backend = asked.read_text().splitlines()
    assert version == "--version"
    assert "--torch-backend" not in plain
    assert backend.startswith(f"pip install --python {home.python} --torch-backend cpu --extra-index-url https://more.")
    assert backend.endswith(" tiny-engine==4.0")
    assert has(home, "tiny_engine")


async def test_an_engine_that_needs_no_torch_is_given_no_backend(homes: Homes, wheels: Path) -> None:
    make_wheel(wheels, "tiny-engine", "4.0", requires=("torch==9.9+cpu",))
    with pytest.raises(InstallFailedError, match=r"the package index has no torch==9\.9\+cpu for this Python"):
        await install(homes, engine("4.0"))


async def test_pips_own_configuration_is_read_by_its_words(
    tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://file.example/simple\nextra-index-url = https://a.example\n  https://b.example\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://env.example/simple")
    stated = await Pip(environment / "bin" / "python").settings()
    assert stated["index-url"] == "https://env.example/simple"
    made = Uv("uv", Pip(environment / "bin" / "python"), stated)
    options = " ".join(made._indexes)
    assert "--index-url https://env.example/simple" in options
    assert "--extra-index-url https://a.example --extra-index-url https://b.example" in options


def test_the_locks_that_are_shipped_are_whole() -> None:
    """Every pin has hashes but torch, which has a build for each Python; and each engine's own package is in it."""
    for name in NAMES:
        made = load(name)
        for variant, recipe in made.variants.items():
            real = Path(lockfile.__file__).with_name("locks") / f"{name}-{made.version}-{variant}.txt"
            if recipe.version or not real.exists():
                continue
            found = lockfile.read(real)
            assert [one.partition("==")[0] for one in found.loose] in ([], ["torch"]), real
            assert len(found.exact) + len(found.loose) == len(found.pins)
            own = recipe.requirements[0].partition("==")[0].partition("[")[0]
            assert any(one.startswith((f"{own}==", f"{own}[")) for one in found.exact), (real, own)
            digests = [word for entry in found.exact for word in entry.split() if word.startswith("--hash=")]
            assert all(len(word) == len("--hash=sha256:") + 64 for word in digests)
