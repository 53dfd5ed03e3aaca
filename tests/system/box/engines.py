"""The real engines as `make engines` has installed them on this machine, given to the box read-only.

Their virtual environments lead to this machine's Python, in a home that the service may not see: in the box that Python
lies in /opt/python, and links and pyvenv.cfg say so.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from hyperllamad.config.load import load_config
from hyperllamad.engines.base import Home
from hyperllamad.engines.homes import Homes
from tests.system.box.shell import CACHE, run

PYTHON = "/opt/python"
HOMES = "/var/lib/hyperllama/engines"


def binds() -> dict[Path, str]:
    """What the box needs to see, and where."""
    config = load_config(None)
    found: dict[Path, str] = {}
    for home in Homes(config.paths.engines, config.engine).in_use():
        if home.variant != "system":
            found |= _home(home)
    found[config.paths.engines / "current.json"] = f"{HOMES}/current.json"
    found[_readable(config.paths.models, "models")] = "/opt/models"
    found[_readable(config.paths.state / "compiled", "compiled")] = "/opt/compiled"
    return found


def _home(home: Home) -> dict[Path, str]:
    directory, ours = Path(home.path), CACHE / "homes" / home.id
    shutil.rmtree(ours, ignore_errors=True)
    ours.mkdir(parents=True)
    stated = (directory / "pyvenv.cfg").read_text()
    base = Path(re.search(r"^home = (.+)/bin$", stated, re.MULTILINE)[1])  # type: ignore[index]
    (ours / "pyvenv.cfg").write_text(stated.replace(str(base), PYTHON))
    shutil.copytree(directory / "bin", ours / "bin", symlinks=True)
    for link in (ours / "bin").iterdir():
        if link.is_symlink() and str(base) in str(link.readlink()):
            target = str(link.readlink()).replace(str(base), PYTHON)
            link.unlink()
            link.symlink_to(target)
    there = f"{HOMES}/{home.id}"
    return {directory: there, ours / "bin": f"{there}/bin", ours / "pyvenv.cfg": f"{there}/pyvenv.cfg", base: PYTHON}


def _readable(source: Path, name: str) -> Path:
    """A copy, of hard links, that everybody may read."""
    copy = CACHE / name
    shutil.rmtree(copy, ignore_errors=True)
    if source.exists():
        run(["cp", "-al", source, copy])
    copy.mkdir(exist_ok=True)
    run(["find", copy, "-type", "d", "-exec", "chmod", "755", "{}", "+"])
    return copy
