"""Every failure: its exit code, its sentence on standard error, its object where JSON was asked for."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyperllamactl import cli, client, exits
from hyperllamactl.exits import Exit
from hyperllamactl.protocol.instances import Instances, Ps
from hyperllamad import control, core, engines, store, supervision
from hyperllamad.config.load import load_config
from hyperllamad.config.paths import SYSTEM_DIRECTORY
from hyperllamad.core.errors import HyperLlamaError
from tests.ctl import replies
from tests.ctl.conftest import Outcome
from tests.ctl.fake_daemon import FakeDaemon

Ctl = Callable[..., Outcome]


@pytest.mark.parametrize("code", exits.OF_CODE)
def test_every_code_ends_with_its_exit_and_says_what_and_what_to_try(code: str, daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.says("ps", replies.failed(code), status=500)
    assert ctl("ps") == Outcome(exits.OF_CODE[code], "", f"hyperllamactl: it is {code}\ntry this\n")


def test_every_code_the_daemon_has_is_in_the_table() -> None:
    for room in (core, engines, store, supervision, control):
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            if module.name != "hyperllamad.store.llama":  # needs the optional packages; the daemon never imports it
                importlib.import_module(module.name)

    def codes(kind: type[HyperLlamaError]) -> Iterator[str]:
        # Those of the front stay on the other door; before there are doors at all nobody can be told.
        if not kind.__module__.startswith(("hyperllamad.front", "hyperllamad.doors")):
            yield kind.code
        for child in kind.__subclasses__():
            yield from codes(child)

    assert not set(codes(HyperLlamaError)) - set(exits.OF_CODE)
    assert set(exits.MEANINGS) == set(Exit)


def test_a_code_of_a_newer_daemon_is_a_plain_failure(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.says("ps", replies.failed("out_of_cheese"), status=418)
    assert ctl("ps").exit == Exit.FAILED


def test_json_has_the_failure_as_its_document(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.says("show", replies.failed("model_not_found"), status=404)
    outcome = ctl("show", "m", "--json")
    assert (outcome.exit, json.loads(outcome.out)) == (Exit.NO_SUCH, replies.failed("model_not_found"))


def test_a_failure_on_the_way_is_the_last_line(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.says("load", replies.progress("weights"), replies.failed("load_failed"))
    outcome = ctl("load", "m", "--json")
    assert outcome.exit == Exit.FAILED
    assert [json.loads(line)["type"] for line in outcome.out.splitlines()] == ["progress", "failed"]
    assert outcome.err == "hyperllamactl: it is load_failed\ntry this\n"


@pytest.mark.parametrize("end", ["closed", "half a line", "no reply"])
def test_a_stream_broken_in_the_middle_is_a_failure_with_a_sentence(end: str, daemon: FakeDaemon, ctl: Ctl) -> None:
    lines = [replies.progress("weights"), *(['{"type": "prog'] if end == "half a line" else [])]
    daemon.says("load", *lines, breaks_off=end != "no reply")
    outcome = ctl("load", "m")
    assert outcome.exit == Exit.FAILED
    assert outcome.err.startswith("weights  0.0s\nhyperllamactl: the answer ")
    assert "hyperllamad may have ended" in outcome.err


def test_an_answer_that_is_not_the_daemons_is_a_failure_with_a_sentence(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.says("ps", "<html>hello</html>\n")
    outcome = ctl("ps")
    assert (outcome.exit, outcome.out) == (Exit.FAILED, "")
    assert "cannot be read" in outcome.err


def test_a_reply_of_the_wrong_kind_is_a_failure(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.says("ps", {"type": "done"})
    assert ctl("ps").exit == Exit.FAILED


def test_a_daemon_that_does_not_answer_is_not_waited_for_for_ever(
    daemon: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.05)
    silent = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(silent))
        listening.listen()
        outcome = ctl("--socket", str(silent), "ps")
    assert outcome.exit == Exit.BUSY
    assert "did not answer ps within" in outcome.err


# -- versions ----------------------------------------------------------------------------------------------------------


def test_a_daemon_of_another_version_is_warned_of_once(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.says("ps", replies.instances(), server="hyperllamad/9.9")
    outcome = ctl("ps", "-q")
    assert outcome.exit == 0
    assert outcome.err.startswith("warning: hyperllamad is 9.9, hyperllamactl ")
    assert outcome.err.count("\n") == 1
    warnings: list[str] = []
    asking = client.Client([str(daemon.path)], warn=warnings.append)
    for _ in range(2):
        asking.call(Ps(), Instances)
    assert len(warnings) == 1


def test_fields_of_a_newer_daemon_are_ignored_and_those_of_an_older_one_have_defaults(
    daemon: FakeDaemon, ctl: Ctl
) -> None:
    old = {"name": "m", "id": "1", "engine": "vllm", "state": "ready"}
    new = {**old, "name": "n", "colour": "red", "nested": {"deep": [1]}}
    daemon.says("ps", {**replies.instances(old, new), "extra": True})
    assert ctl("ps", "-q") == Outcome(0, "m\nn\n", "")


# -- the door ----------------------------------------------------------------------------------------------------------


def test_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--socket", str(tmp_path / "none"), "ps"]) == Exit.UNREACHABLE
    err = capsys.readouterr().err
    assert "hyperllamad is not running" in err
    assert "start it with: systemctl start hyperllamad (or, without root: hyperllamad)" in err


def test_a_socket_nobody_listens_on_is_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    assert cli.main(["--socket", str(tmp_path / "dead"), "ps"]) == Exit.UNREACHABLE
    assert "hyperllamad is not running" in capsys.readouterr().err


def test_a_path_that_cannot_be_a_socket_is_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--socket", str(tmp_path / ("x" * 200)), "ps"]) == Exit.UNREACHABLE
    assert "too long" in capsys.readouterr().err


def test_no_permission_says_how_to_get_it(daemon: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root passes every door, so the kernel's refusal is played.
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    outcome = ctl("ps")
    assert outcome.exit == Exit.NOT_PERMITTED
    assert f"no permission to use {daemon.path}" in outcome.err
    assert "sudo usermod -aG root $USER" in outcome.err or os.getgid() != 0


def test_where_the_daemon_is_looked_for(tmp_path: Path) -> None:
    system = client.SYSTEM_SOCKET
    for environ in (
        {"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/me"},
        {"HOME": "/home/me"},
        {"HOME": "/home/me", "XDG_STATE_HOME": "/data/state"},
    ):
        own = load_config(tmp_path, environ).paths.admin_socket
        assert client.sockets("", environ) == (str(own), system)
        assert client.sockets("", {**environ, "HYPERLLAMA_SOCKET": "/s"}) == ("/s",)
        assert client.sockets("/t", {**environ, "HYPERLLAMA_SOCKET": "/s"}) == ("/t",)
    assert str(load_config(SYSTEM_DIRECTORY, {}).paths.admin_socket) == system


def test_ones_own_daemon_comes_before_the_systems(
    daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.says("ps", replies.instances(replies.READY))
    monkeypatch.setattr(client, "SYSTEM_SOCKET", str(daemon.path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    assert cli.main(["ps", "-q"]) == 0  # nothing is there: the system's
    assert capsys.readouterr().out == "smollm2:135m\n"
    own = tmp_path / "run" / "hyperllama" / "admin.sock"
    own.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(own))
        listening.listen()
        monkeypatch.setattr(client, "PATIENCE", 0.05)
        assert cli.main(["ps", "-q"]) == Exit.BUSY  # one's own is there, and silent


# -- ends that are nobody's failure, in a real process -----------------------------------------------------------------


def start(daemon: FakeDaemon, *words: str, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hyperllamactl", "--socket", str(daemon.path), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_usage(daemon: FakeDaemon) -> None:
    for words in ([], ["engine"], ["dance"], ["logs", "m", "-n", "many"]):
        with start(daemon, *words) as process:
            _, err = process.communicate()
        assert (process.returncode, err[:20]) == (Exit.USAGE, "usage: hyperllamactl")


def test_a_reader_that_has_gone_is_no_failure(daemon: FakeDaemon) -> None:
    line = {"type": "log_line", "at": 1.0, "text": "x" * 1000}
    daemon.says("logs", *[line] * 2000, {"type": "done"})
    with start(daemon, "logs", "m") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == Exit.PIPE_CLOSED


def test_ctrl_c_is_quiet_and_hangs_up(daemon: FakeDaemon) -> None:
    daemon.says("logs", {"type": "log_line", "at": 1.0, "text": "one"}, waits=True)
    with start(daemon, "logs", "-f", "m") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "one\n"  # comes while the stream is open
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (Exit.INTERRUPTED, "", "")
    assert daemon.hung_up.wait(10)


def test_bytes_that_are_no_text_are_a_mistake_of_the_command_line(daemon: FakeDaemon, ctl: Ctl) -> None:
    outcome = ctl("show", os.fsdecode(b"m\xff"))
    assert outcome == Outcome(Exit.USAGE, "", "hyperllamactl: m\\udcff is not valid UTF-8\nwrite it in UTF-8\n")
    assert daemon.asked == []
