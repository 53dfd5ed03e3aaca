"""sd_notify(3): what systemd hears, and that nothing happens without it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hyperllamad.notifier import Notifier


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(1)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        notifier.ready()
        notifier.status("serving http://127.0.0.1:11434")
        notifier.stopping()
        told = [manager.recv(1000).decode() for _ in range(3)]
        assert told == ["READY=1", "STATUS=serving http://127.0.0.1:11434", "STOPPING=1"]
        notifier._systemd.socket.close()  # in the daemon it lives as long as the process


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().ready()
