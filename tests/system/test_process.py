"""The daemon as a process: exit codes, taken addresses, one daemon for a runtime directory, READY, a clean end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, daemon, eventually


@pytest.fixture
def running() -> Iterator[Daemon]:
    with daemon({}) as started:
        yield started


def hyperllamad(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hyperllamad", *arguments]
    return subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=30)


def test_a_good_configuration_is_good(running: Daemon) -> None:
    done = hyperllamad("--config", str(running.root / "etc"), "--check-config")
    assert done.returncode == 0
    assert "is good" in done.stderr


def test_a_wrong_configuration_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "hyperllamad.toml").write_text("[fleet]\nmax_queue = 'many'\n")
    for extra in ([], ["--check-config"]):
        done = hyperllamad("--config", str(tmp_path), *extra)
        assert done.returncode == 2
        assert "`fleet.max_queue` is 'many', but a whole number was expected" in done.stderr


def test_a_directory_that_is_named_and_not_there_is_no_reason_to_take_defaults(tmp_path: Path) -> None:
    for arguments, environ in (
        (["--config", str(tmp_path / "no")], {}),
        ([], {"HYPERLLAMA_CONFIG": str(tmp_path / "no")}),
    ):
        done = hyperllamad(*arguments, "--check-config", **environ)
        assert (done.returncode, f"{tmp_path / 'no'} is no directory" in done.stderr) == (2, True)


def test_a_taken_port_is_named_with_what_to_do(running: Daemon, tmp_path: Path) -> None:
    directories = f'state = "{tmp_path}/s"\ncache = "{tmp_path}/c"\nruntime = "{tmp_path}/r"\n'
    (tmp_path / "hyperllamad.toml").write_text(f"[paths]\n{directories}")
    done = hyperllamad("--config", str(tmp_path), OLLAMA_HOST=f"127.0.0.1:{running.port}")
    assert done.returncode == 69
    assert f"cannot listen on 127.0.0.1:{running.port}" in done.stderr
    assert "OLLAMA_HOST" in done.stderr


def test_a_second_daemon_in_the_same_runtime_directory_is_refused(running: Daemon) -> None:
    done = hyperllamad("--config", str(running.root / "etc"), OLLAMA_HOST="127.0.0.1:0")
    assert done.returncode == 69
    assert "another hyperllamad runs with" in done.stderr
    assert running.ps() == [], "the first one goes on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_when_asked(running: Daemon, number: signal.Signals) -> None:
    assert running.process is not None
    assert (running.root / "run/admin.sock").is_socket()
    running.process.send_signal(number)
    assert running.process.wait(10) == 0
    assert not (running.root / "run/admin.sock").exists()


def test_hup_reloads_and_a_wrong_configuration_stays_out(running: Daemon) -> None:
    assert running.process is not None
    main = running.root / "etc/hyperllamad.toml"
    good = main.read_text()
    main.write_text(good + "[fleet]\nmax_queue = 'many'\n")
    running.process.send_signal(signal.SIGHUP)
    eventually(lambda: "max_queue" in running.ctl("status").stdout, within=10, what="status tells why it is not taken")
    assert "max_queue" in running.ctl("reload", check=False).stderr
    assert running.ctl("reload", check=False).returncode == 1
    main.write_text(good + "[models]\nauto_pull = true\n")
    running.process.send_signal(signal.SIGHUP)
    eventually(lambda: "max_queue" not in running.ctl("status").stdout, within=10, what="the good one is in force")
    assert running.ctl("reload").stderr.endswith("the configuration is in force\n")
    assert running.stop() == 0


def test_systemd_hears_when_a_reload_begins_and_ends(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(20)
        with daemon({}, environ={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as running:
            _wait_told(notify, "READY=1")
            assert running.process is not None
            running.process.send_signal(signal.SIGHUP)
            said = _wait_told(notify, "RELOADING=1")
            assert int(said.partition("MONOTONIC_USEC=")[2]) > 0
            _wait_told(notify, "READY=1")


def _wait_told(notify: socket.socket, text: str) -> str:
    """The first message that holds `text`."""
    while text not in (said := notify.recv(4096).decode()):
        pass
    return said


_AT_TERMINAL = """
import os, signal, sys
os.login_tty(int(sys.argv[1]))
if sys.argv[2] == "ignored":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.mark.parametrize("ignored", [False, True], ids=["plain", "nohup"])
def test_a_terminal_that_closes_stops_it_unless_hup_was_ignored(running: Daemon, ignored: bool) -> None:
    assert running.stop() == 0
    master, slave = os.openpty()
    program = [sys.executable, "-m", "hyperllamad", "--config", str(running.root / "etc")]
    command = [sys.executable, "-c", _AT_TERMINAL, str(slave), "ignored" if ignored else "plain", *program]
    running.process = subprocess.Popen(command, env=running.environ, pass_fds=[slave])
    os.close(slave)
    eventually(lambda: running.ctl("status", check=False).returncode == 0, within=20, what="it runs")
    os.close(master)
    if ignored:
        eventually(lambda: running.ctl("reload", check=False).returncode == 0, within=20, what="it goes on")
        assert running.stop() == 0
    else:
        assert running.process.wait(20) == 0


def test_what_an_interrupted_install_left_is_removed(tmp_path: Path) -> None:
    half = tmp_path / "vllm-0.0.0-cpu"
    (half / "lib").mkdir(parents=True)
    with daemon({}, engines=tmp_path) as running:
        eventually(lambda: not half.exists(), within=10, what="the half home is gone")
        eventually(lambda: half.name in running.log.read_text(), within=5, what="the log says so")


def test_ready_is_said_when_the_api_answers_and_stopping_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(20)
        with daemon({}, environ={"NOTIFY_SOCKET": str(path)}) as running:
            told = [notify.recv(4096)]
            while b"READY=1" not in told[-1]:
                told.append(notify.recv(4096))
            with socket.create_connection(("127.0.0.1", running.port), timeout=1):
                pass
            assert running.stop() == 0
        notify.setblocking(False)
        told = []
        eventually(lambda: _collect(notify, told) or any(b"STOPPING=1" in x for x in told), within=5, what="STOPPING")


def _collect(notify: socket.socket, told: list[bytes]) -> bool:
    try:
        told.append(notify.recv(4096))
    except BlockingIOError:
        return False
    return b"STOPPING=1" in told[-1]


def test_the_command_line_says_how_to_start_a_daemon_that_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hyperllamactl", "--socket", str(tmp_path / "none.sock"), "ps"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 69
    assert "start it with: systemctl start hyperllamad" in done.stderr


def test_a_fault_of_ours_ends_it_at_once_told_whole_and_the_next_life_starts_clean(tmp_path: Path) -> None:
    broken = (
        "import sys, hyperllamad.daemon as daemon\n"
        "from hyperllamad.__main__ import main\n"
        "async def boom(*_): raise ZeroDivisionError('a fault of ours')\n"
        "daemon._sweep_homes = boom\n"
        "sys.exit(main(['--config', sys.argv[1]]))\n"
    )
    with daemon({}, engines=tmp_path) as running:
        assert running.stop() == 0
        etc = str(running.root / "etc")
        command = [sys.executable, "-c", broken, etc]
        done = subprocess.run(command, env=running.environ, capture_output=True, text=True, timeout=30)
        assert done.returncode == 70
        (told,) = [line for line in done.stderr.splitlines() if "a fault of hyperllamad itself" in line]
        assert told.startswith("<2>")
        assert "ZeroDivisionError: a fault of ours" in told
        assert "in boom" in told
        running.start()
        assert running.ps() == []
