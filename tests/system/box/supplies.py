"""What the machine is given from outside: packages, wheels of an engine, a model, the checks themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import anyio

from hyperllamad.config.load import load_config
from hyperllamad.core.models import Format
from hyperllamad.engines import base
from hyperllamad.store.demo import ensure_demo
from tests import fake_llama_server
from tests.system.box import rpms
from tests.system.box.shell import CACHE, ROOT, CommandError, run, say

HOST_PACKAGES = ("mmdebstrap", "systemd-container")
NEXT_VERSION = "0.1.1"


def install_host_packages(*packages: str) -> None:
    """With apt, what is missing on this machine."""

    def missing(package: str) -> bool:
        said = subprocess.run(
            ["dpkg-query", "-W", "-f=${Status}", package], capture_output=True, text=True, check=False
        )
        return "install ok installed" not in said.stdout

    if wanted := [package for package in packages if missing(package)]:
        say(f"apt-get install {' '.join(wanted)}")
        run(["apt-get", "update", "-qq"])
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted], DEBIAN_FRONTEND="noninteractive")


def gather(tree: Path, *, plain: bool) -> Path:
    """A directory with everything the checks need, as the machine sees it at /opt/box; `plain`: without namespaces."""
    box = CACHE / "supplies"
    engine_and_model()
    rpms.build(tree, box / "rpms" / "1", plain=plain)
    rpms.build(tree, box / "rpms" / "2", version=NEXT_VERSION, plain=plain)
    rpms.build(tree, box / "rpms" / "bundled", bundled=True, plain=plain)
    _standin(box / "standin")
    shutil.rmtree(box / "inside", ignore_errors=True)
    shutil.copytree(Path(__file__).with_name("inside"), box / "inside", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/store/hub.py", box / "inside")
    shutil.copy(ROOT / "packaging/rpm/rpmlint.toml", box)
    shutil.copy(ROOT / "docs/install.md", box)
    shutil.copytree(ROOT / "packaging", box / "packaging", dirs_exist_ok=True)
    return box


def engine_and_model() -> tuple[Path, Path]:
    """A folder of wheels that llama.cpp is installed from, and one with the demo model."""
    box = CACHE / "supplies"
    box.mkdir(parents=True, exist_ok=True)
    wheels, model = box / "wheels", box / "model"
    _wheels(wheels)
    _model(model)
    return wheels, model


def _wheels(directory: Path) -> None:
    """llama.cpp's wheel; it is built against Python's stable interface, so this machine's serves the box too."""
    engine = base.load("llama_cpp")
    requirement = f"xllamacpp=={engine.version}"
    if not list(directory.glob(f"xllamacpp-{engine.version}-*")):
        say(f"fetching {requirement}")
        shutil.rmtree(directory, ignore_errors=True)
        run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", directory, requirement])
    if not any("abi3" in path.name for path in directory.glob("*.whl")):
        raise CommandError("the wheel of xllamacpp fits only this Python, not the box's")


def _standin(directory: Path) -> None:
    """A llama-server that is the fake engine, and models for it."""
    directory.mkdir(exist_ok=True)
    shutil.copy(ROOT / "tests/fake_engine.py", directory)
    program = directory / "llama-server"
    program.write_text(
        fake_llama_server.SCRIPT.format(python="/usr/bin/python3", engine="/opt/box/standin/fake_engine.py")
    )
    for name in ("calm", "hog"):
        fake_llama_server.model(directory, name)


def _model(directory: Path) -> None:
    """The demo model's file; the user's own copy, where `make engines` has put it, is hard-linked."""
    path = anyio.run(ensure_demo, load_config(None).paths, Format.GGUF)
    directory.mkdir(exist_ok=True)
    copy = directory / path.name
    if not copy.exists():
        shutil.copy(path, copy)
