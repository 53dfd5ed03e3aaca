"""The container's definition as its linter sees it, and the quadlet as far as it can be read without podman."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

CONTAINER = Path(__file__).parents[2] / "packaging" / "container"


def test_the_containerfile_is_without_reproach() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, CONTAINER / "Containerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_linter_would_say_something(tmp_path: Path) -> None:
    careless = tmp_path / "Containerfile"
    careless.write_text("FROM fedora\nRUN cd /tmp && sudo dnf install vim\n")
    linter = Path(sys.executable).with_name("hadolint")
    assert "DL3004" in subprocess.run([linter, careless], capture_output=True, text=True).stdout


def test_image_and_quadlet_speak_of_the_same_directories_and_port() -> None:
    quadlet = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    quadlet.optionxform = str  # type: ignore[assignment, method-assign]
    quadlet.read(CONTAINER / "hyperllama.container")
    image = (CONTAINER / "Containerfile").read_text()
    assert quadlet["Container"]["Volume"].partition(":")[2] in image  # the last of two
    assert "EXPOSE 11434" in image
    assert quadlet["Container"]["PublishPort"] == "127.0.0.1:11434:11434"
    assert quadlet["Container"]["Notify"] == "true"
