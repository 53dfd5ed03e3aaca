"""After a reboot; then the optional socket unit; then the end."""

from __future__ import annotations

from lib import ask, chat, check, eventually, processes, sh, show


@check("after a reboot it serves, with what was installed before")
def _() -> None:
    assert sh("systemctl is-active hyperllamad hyperllamad-admin.socket").split() == ["active", "active"]
    assert chat()
    assert "Started" in sh("journalctl -b -1 -u hyperllamad -o cat"), "the journal of the life before"


@check("with hyperllamad.socket the first request starts it")
def _() -> None:
    sh("systemctl stop hyperllamad && systemctl start hyperllamad.socket")
    assert sh("systemctl is-active hyperllamad", status=3) == "inactive"
    assert "version" in ask("/api/version")
    assert sh("systemctl is-active hyperllamad") == "active"
    assert chat()


@check("and stopping both ends both")
def _() -> None:
    sh("systemctl stop hyperllamad.socket hyperllamad.service")
    assert processes() == []
    sh("curl -sS -m 5 http://127.0.0.1:11434/api/version", status=7)
    sh("systemctl start hyperllamad")
    eventually(lambda: ask("/api/version"), within=10, what="the service by itself serves again")
    assert show("ActiveState", "hyperllamad.socket") == "inactive"


@check("erase stops and disables it")
def _() -> None:
    assert chat()
    sh("rpm -e hyperllama")
    assert processes() == []
    assert sh("systemctl is-active hyperllamad || true") in {"inactive", "failed"}
    assert sh("find /etc/systemd/system -name 'hyperllama*' -path '*.wants/*'") == ""


@check("engines, models and the edited configuration are kept")
def _() -> None:
    sh("test -s /var/lib/hyperllama/engines/current.json")
    sh("test -s '/var/lib/hyperllama/models/smollm2@135m/smollm2-135m-instruct-q4_1.gguf'")
    assert sh("tail -1 /etc/hyperllama/hyperllamad.toml.rpmsave") == "# edited"
