"""The package at work: the service, an engine and a model, and who may do what."""

from __future__ import annotations

import json

from lib import BOX, MODEL, ask, chat, check, eventually, instances, processes, running, sh, show

STORE = "/var/lib/hyperllama/models/smollm2@135m"


@check("enable --now starts it, and it is ready")
def _() -> None:
    sh("systemctl enable --now hyperllamad")
    assert sh("systemctl is-active hyperllamad hyperllamad-admin.socket").split() == ["active", "active"]
    assert show("StatusText").startswith("serving http://127.0.0.1:11434"), show("StatusText")
    assert "version" in ask("/api/version")


@check("its sockets lie with systemd")
def _() -> None:
    assert int(show("NFileDescriptorStore")) >= 1


@check("hyperllamactl as root")
def _() -> None:
    status = json.loads(sh("hyperllamactl status --json"))
    assert status["url"] == "http://127.0.0.1:11434" and status["config"] == "/etc/hyperllama", status


@check("an engine is installed from a folder of wheels, as the service's user")
def _() -> None:
    # What an administrator of a machine without a network does.
    sh("mkdir -p /etc/systemd/system/hyperllamad.service.d")
    environment = f"Environment=PIP_NO_INDEX=1 PIP_FIND_LINKS={BOX}/wheels"
    sh(f"printf '[Service]\\n{environment}\\n' >/etc/systemd/system/hyperllamad.service.d/wheels.conf")
    sh("systemctl daemon-reload && systemctl restart hyperllamad")
    sh("hyperllamactl engine install llama_cpp", limit=300)
    (home,) = sh("hyperllamactl engine list -q").split()
    assert sh(f"stat -c %U /var/lib/hyperllama/engines/{home}/home.json") == "hyperllama"


@check("a model put into the store is there at once")
def _() -> None:
    sh(f"install -d -o hyperllama -g hyperllama -m 0750 /var/lib/hyperllama/models {STORE}")
    sh(f"install -o hyperllama -g hyperllama -m 0640 {BOX}/model/*.gguf {STORE}/")
    assert MODEL in sh("hyperllamactl list -q").split()


@check("a member of the group may load it, with hyperllamactl")
def _() -> None:
    sh("useradd --create-home --groups hyperllama member && useradd --create-home outsider")
    said = sh(f"runuser -u member -- hyperllamactl load {MODEL}")
    assert "is ready" in said, said
    assert "uid=" + sh("id -u member") in sh("journalctl -u hyperllamad -o cat | grep 'asked to load'")


@check("an outsider is refused, and told which group to join")
def _() -> None:
    said = sh("runuser -u outsider -- hyperllamactl ps", status=7)
    assert "usermod -aG hyperllama" in said, said


@check("an outsider may use the API")
def _() -> None:
    body = json.dumps({"model": MODEL, "prompt": "Hi", "stream": False, "options": {"num_predict": 4}})
    said = sh(f"runuser -u outsider -- curl -sS http://127.0.0.1:11434/api/generate -d '{body}'")
    assert json.loads(said)["done"] is True, said


@check("the engine lives in a control group of its own")
def _() -> None:
    (row,) = instances()
    group = sh(f"cat /proc/{row['pid']}/cgroup").rpartition("/")[2]
    assert group.startswith("engine-"), group
    assert sh(f"cat /proc/{show('MainPID')}/cgroup").endswith("/supervisor")


@check("daemon and engine can write nowhere but where they should")
def _() -> None:
    (row,) = instances()
    for pid in (show("MainPID"), row["pid"]):
        for place in ("/etc", "/usr", "/var/lib", "/etc/hyperllama"):
            said = sh(f"nsenter -t {pid} -m touch {place}/x", status=1)
            assert "Read-only" in said, said
        sh(f"nsenter -t {pid} -m ls /home | wc -l | grep -q '^0$'")
        assert "NoNewPrivs:\t1" in sh(f"cat /proc/{pid}/status")


@check("systemctl stop leaves no process")
def _() -> None:
    before = processes()
    assert len(before) >= 3, "daemon, guard and engine"
    sh("systemctl stop hyperllamad")
    assert processes() == []
    assert not any(running(pid) for pid in before)


@check("nor does hyperllamactl start what was stopped; start brings it back")
def _() -> None:
    sh("hyperllamactl status", status=69)
    assert sh("systemctl is-active hyperllamad", status=3) == "inactive"
    sh("systemctl start hyperllamad")
    assert chat()
    eventually(lambda: json.loads(sh("hyperllamactl status --json")), within=10, what="the admin socket is back")
