"""API keys through the real daemon and command line: made, used, removed; a file others can read; a warning."""

from __future__ import annotations

import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hyperllamactl.client import Client
from hyperllamactl.protocol.base import Done
from hyperllamactl.protocol.daemon import Reload
from hyperllamactl.protocol.keys import KeyMade, KeyNew
from tests.daemon import Daemon, daemon


def status(running: Daemon, path: str, key: str = "") -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(running.url + path, headers=headers)) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_key_is_made_used_and_removed_while_the_daemon_runs() -> None:
    with daemon({}, main="[keys]\nrequired = true\n") as running:
        assert status(running, "/health") == 200
        assert status(running, "/api/tags") == 401
        key = running.ctl("key", "new", "alice", "-q").stdout.strip()
        assert status(running, "/api/tags", key) == 200
        assert "alice" in running.ctl("key", "list").stdout
        running.ctl("key", "rm", "alice")
        assert status(running, "/api/tags", key) == 401
        assert (running.root / "state/keys.toml").stat().st_mode & 0o777 == 0o600
        log = running.log.read_text()
    assert key not in log
    assert "`hyperllamactl key new NAME` makes one" in log


def test_a_key_file_others_can_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text('[[key]]\nname = "a"\nkey = "very secret"\n')
    (tmp_path / "keys.toml").chmod(0o644)
    directories = f'[paths]\nstate = "{tmp_path}"\ncache = "{tmp_path}"\nruntime = "{tmp_path}/r"\n'
    (tmp_path / "hyperllamad.toml").write_text(f"[keys]\nrequired = true\n{directories}")
    command = [sys.executable, "-m", "hyperllamad", "--config", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert f"chmod 600 {tmp_path}/keys.toml" in done.stderr
    assert "very secret" not in done.stderr


@pytest.mark.parametrize(("host", "warned"), [("0.0.0.0", 1), ("127.0.0.1", 0)])
def test_an_open_door_to_the_network_is_warned_of_once(host: str, warned: int) -> None:
    with daemon({}) as running:
        running.stop()
        running.environ["OLLAMA_HOST"] = f"{host}:{running.port}"
        running.log.write_text("")
        running.start()
        assert status(running, "/api/tags") == 200, "allowed, as in Ollama"
        running.stop()
        log = running.log.read_text()
    assert log.count("whoever can reach this machine may use the API") == warned


def test_keys_made_while_the_configuration_is_read_anew_are_all_kept() -> None:
    with daemon({}, main="[keys]\nconcurrent = 0\n") as running:
        main = running.root / "etc/hyperllamad.toml"
        admin = Client([str(running.root / "run/admin.sock")], warn=lambda _: None)
        texts: list[str] = []
        busy = threading.Barrier(5)

        def make(number: int) -> None:
            busy.wait()
            for index in range(10):
                texts.append(admin.call(KeyNew(name=f"k{number}.{index}"), KeyMade).key)

        with ThreadPoolExecutor(4) as pool:
            makers = [pool.submit(make, number) for number in range(4)]
            busy.wait()
            reloads = 0
            while not all(maker.done() for maker in makers):
                reloads += 1
                main.write_text(main.read_text().replace(f"concurrent = {reloads - 1}", f"concurrent = {reloads}"))
                admin.call(Reload(), Done)
        assert reloads > 1
        for maker in makers:
            maker.result()
        main.write_text(main.read_text().replace("[keys]", "[keys]\nrequired = true"))
        admin.call(Reload(), Done)
        assert [status(running, "/api/tags", text) for text in texts] == [200] * 40
