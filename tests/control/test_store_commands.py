"""pull, rm and cp: over a real store on a disk and a hub on a loopback port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperllamactl import protocol
from hyperllamactl.protocol import Done, Failed, Progress
from tests.control.conftest import Door
from tests.store import hub as hub_module
from tests.store.files import small_gguf
from tests.store.hub import Hub

NAME = "hf.co/org/repo"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_module.serve() as hub:
        hub.put("org/repo", {"x-Q4_0.gguf": small_gguf()})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


def models(door: Door) -> list[str]:
    """The directories of models and the variants' files."""
    paths = door.rooms.config.paths
    found = [*paths.models.glob("*/*/*.gguf"), *paths.models.glob("*/*/*/*.gguf"), *paths.state.glob("variants/*")]
    return sorted(path.name for path in found)


async def test_a_model_comes_gets_a_second_name_and_goes(door: Door, hub: Hub) -> None:
    pulled = await door.call(protocol.Pull(model=NAME))
    assert pulled.last == Done(message=f"{NAME}:latest is here")
    phases = [line.phase for line in pulled.lines if isinstance(line, Progress)]
    assert phases
    assert models(door) == ["x-Q4_0.gguf"]
    copied = await door.call(protocol.Copy(source=NAME, destination="mine"))
    assert copied.last == Done(message=f"mine:latest is a second name of {NAME}:latest")
    assert models(door) == ["mine@latest.toml", "x-Q4_0.gguf"]
    for name in ("mine", NAME):
        removed = await door.call(protocol.Remove(model=name))
        assert isinstance(removed.last, Done)
    assert models(door) == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (protocol.Pull(model="hf.co/org/none"), "repository_not_found"),
        (protocol.Pull(model="nosuch"), "unknown_short_name"),
        (protocol.Pull(model="bad name"), "invalid_name"),
        (protocol.Remove(model="nosuch"), "model_not_found"),
        (protocol.Copy(source="nosuch", destination="n"), "model_not_found"),
    ],
)
async def test_what_cannot_be_done(command: protocol.Command, code: str, door: Door, hub: Hub) -> None:
    failed = (await door.call(command)).last
    assert isinstance(failed, Failed)
    assert failed.code == code
