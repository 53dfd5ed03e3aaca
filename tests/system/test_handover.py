"""Sockets that outlive the daemon: a stand-in for systemd stores them, and clients wait through the restart."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, daemon, eventually, free_port


class Manager:
    """systemd's side of sd_notify and of the descriptor store."""

    def __init__(self, path: Path) -> None:
        self.environ = {"NOTIFY_SOCKET": str(path), "FDSTORE": "8"}
        self.told: list[str] = []
        self.stored: dict[str, list[socket.socket]] = {}
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(path))
        self._notify.settimeout(20)

    def wait(self, text: str) -> None:
        """Until the daemon has said it; everything on the way is taken note of."""
        while not any(text in told for told in self.told):
            data, descriptors, _, _ = socket.recv_fds(self._notify, 4096, 16)
            lines = data.decode().split("\n")
            self.told += lines
            name = next((line.removeprefix("FDNAME=") for line in lines if line.startswith("FDNAME=")), "")
            if "FDSTORE=1" in lines:
                self.stored.setdefault(name, []).extend(socket.socket(fileno=fd) for fd in descriptors)
            if "FDSTOREREMOVE=1" in lines:
                for sock in self.stored.pop(name, []):
                    sock.close()

    def close(self) -> None:
        for sock in (self._notify, *(sock for kept in self.stored.values() for sock in kept)):
            sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with contextlib.closing(Manager(tmp_path / "notify")) as playing:
        yield playing


_LAUNCH = """
import os, sys
passed = int(sys.argv[1])
if passed != 3:
    os.dup2(passed, 3)
    os.close(passed)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.executable, [sys.executable, "-m", "hyperllamad", "--config", sys.argv[3]])
"""


def start_with(running: Daemon, name: str, sock: socket.socket) -> None:
    """The next life, with a socket passed as descriptor 3."""
    command = [sys.executable, "-c", _LAUNCH, str(sock.fileno()), name, str(running.root / "etc")]
    with running.log.open("ab") as log:
        running.process = subprocess.Popen(
            command, stdout=log, stderr=log, env=running.environ, start_new_session=True, pass_fds=[sock.fileno()]
        )


def version(port: int) -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/api/version")
        return connection.getresponse().status


def test_nobody_is_refused_while_it_restarts(manager: Manager) -> None:
    with daemon({}, environ=manager.environ) as running:
        manager.wait("READY=1")
        assert list(manager.stored) == ["api-kept"]
        statuses: list[int | str] = []
        enough = threading.Event()

        def keep_asking() -> None:
            while not enough.is_set():
                try:
                    statuses.append(version(running.port))
                except OSError as failure:
                    statuses.append(str(failure))

        with contextlib.ExitStack() as stack:
            for _ in range(4):
                asking = threading.Thread(target=keep_asking)
                asking.start()
                stack.callback(asking.join)
            stack.callback(enough.set)
            eventually(lambda: len(statuses) > 20, within=10, what="clients are served")
            assert running.stop() == 0
            served = len(statuses)
            start_with(running, "api-kept", manager.stored["api-kept"][0])
            eventually(lambda: len(statuses) > served + 20, within=20, what="clients are served again")
        assert set(statuses) == {200}


def test_who_comes_while_nothing_runs_is_answered_by_the_next_life(manager: Manager) -> None:
    with daemon({}, environ=manager.environ) as running:
        manager.wait("READY=1")
        running.kill()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)) as connection:
            connection.request("GET", "/api/version")
            start_with(running, "api-kept", manager.stored["api-kept"][0])
            assert connection.getresponse().status == 200


def test_the_configured_address_wins_over_the_kept_one(manager: Manager) -> None:
    with daemon({}, environ=manager.environ) as running:
        manager.wait("READY=1")
        assert running.stop() == 0
        before, running.port = running.port, free_port()
        main = running.root / "etc" / "hyperllamad.toml"
        main.write_text(main.read_text().replace(str(before), str(running.port)))
        kept = manager.stored["api-kept"][0]
        copy = socket.socket(fileno=os.dup(kept.fileno()))
        manager.told.clear()
        with contextlib.closing(copy):
            start_with(running, "api-kept", copy)
            manager.wait("READY=1")
        assert version(running.port) == 200
        (now,) = manager.stored["api-kept"]
        assert now.getsockname()[1] == running.port, "the old one was forgotten, the new one kept"
        with pytest.raises(OSError):
            version(before)


def test_a_socket_unit_wins_over_the_configuration(manager: Manager) -> None:
    with daemon({}, environ=manager.environ) as running, socket.create_server(("127.0.0.1", 0)) as listening:
        manager.wait("READY=1")
        assert running.stop() == 0
        manager.told.clear()
        stored = dict(manager.stored)
        start_with(running, "api", listening)
        manager.wait("READY=1")
        assert version(listening.getsockname()[1]) == 200
        assert f"http://127.0.0.1:{listening.getsockname()[1]}" in running.ctl("status").stdout
        assert manager.stored == stored, "systemd has it already: it is not stored"


def test_the_admin_socket_of_a_socket_unit_is_left_in_place(manager: Manager, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with daemon({}, environ=manager.environ) as running, socket.socket(socket.AF_UNIX) as listening:
        manager.wait("READY=1")
        assert running.stop() == 0
        manager.told.clear()
        for kept in manager.stored.pop("api-kept"):
            kept.close()
        listening.bind(str(path))
        listening.listen()
        start_with(running, "admin", listening)
        manager.wait("READY=1")
        assert not (running.root / "run/admin.sock").exists()
        assert '"type": "status_report"' in running.ctl("--socket", str(path), "status", "--json").stdout
        assert running.stop() == 0
        assert path.is_socket()


def test_variables_meant_for_another_process_are_ignored(manager: Manager) -> None:
    stray = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "api"}
    with daemon({}, environ={**manager.environ, **stray}) as running:
        assert version(running.port) == 200
