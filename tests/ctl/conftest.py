"""A scripted daemon, and the command line called in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyperllamactl import cli, commands
from tests.ctl import fake_daemon

NOW = 1_700_000_000.0
SNAPSHOTS = Path(__file__).parent / "snapshots"


@dataclass
class Outcome:
    exit: int
    out: str
    err: str


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[fake_daemon.FakeDaemon]:
    with fake_daemon.running(tmp_path / "admin.sock") as running:
        yield running


@pytest.fixture
def ctl(
    daemon: fake_daemon.FakeDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """`ctl("ps", "-q")`: exit code and output, with both clocks stopped."""
    monkeypatch.setattr(commands, "monotonic", lambda: 0.0)

    def run(*words: str) -> Outcome:
        code = cli.main(["--socket", str(daemon.path), *words], now=lambda: NOW)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def snapshot() -> Callable[[str, str], None]:
    """Compare with snapshots/NAME.txt; UPDATE_SNAPSHOTS=1 writes it anew, for a reader to judge the difference."""

    def check(name: str, text: str) -> None:
        file = SNAPSHOTS / f"{name}.txt"
        if os.environ.get("UPDATE_SNAPSHOTS"):
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8")

    return check
