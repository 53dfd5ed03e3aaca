"""What befalls the machine: it sleeps, as the real logind tells it; a GPU is expected and does not come."""

from __future__ import annotations

import json
from pathlib import Path

from lib import ask, chat, check, eventually, instances, sh, show

SAYS_SLEEP = "/etc/systemd/system/systemd-logind.service.d"
SYS = ("fs/cgroup", "class", "devices", "bus", "dev", "block", "kernel")  # what logind looks at besides
ENGINES = "/var/lib/hyperllama/engines"


def journal() -> str:
    return sh("journalctl -u hyperllamad -o cat --since=@$(stat -c %Y /root/began)")


def locks() -> str:
    return sh("systemd-inhibit --list --no-pager --no-legend | grep hyperllamad || true")


@check("logind waits for the service before the machine sleeps")
def _() -> None:
    # The machine under test has nothing to sleep with: logind is shown a /sys that says it has, and sleep is a no-op.
    sh("mkdir -p /root/sys/power && printf 'freeze mem disk' >/root/sys/power/state && : >/root/began")
    parts = [name for name in SYS if Path("/sys", name).is_dir()]
    for name in parts:
        Path("/root/sys", name).mkdir(parents=True, exist_ok=True)
    binds = " ".join(["/root/sys:/sys", *(f"/sys/{name}:/sys/{name}" for name in parts)])
    sh(f"mkdir -p {SAYS_SLEEP} /etc/systemd/system/systemd-suspend.service.d")
    sh(f"printf '[Service]\\nBindPaths={binds}\\n' >{SAYS_SLEEP}/sleep.conf")
    sh(
        "printf '[Service]\\nExecStart=\\nExecStart=/usr/bin/true\\n'"
        " >/etc/systemd/system/systemd-suspend.service.d/sleep.conf"
    )
    sh("systemctl daemon-reload && systemctl restart systemd-logind hyperllamad")
    held = eventually(locks, within=20, what="a lock")
    assert "sleep" in held and "delay" in held, held


@check("the machine sleeps and wakes: models rest, the lock is given back and taken again, and answers come")
def _() -> None:
    assert chat()
    (before,) = instances()
    sh("systemctl suspend")
    eventually(lambda: "the machine is back" in journal(), within=30, what="it is back")
    assert "hyperllamad: the machine goes to sleep" in journal(), journal()
    eventually(locks, within=20, what="the lock for the next time")
    assert chat()
    (after,) = instances()
    assert after["pid"] == before["pid"], "what lies in the machine's own memory stays"


@check("a GPU that is expected and does not come: the start waits, then says so everywhere, and looks for it")
def _() -> None:
    home = f"{ENGINES}/vllm-0.0.1-cuda"
    sh(f"install -d -o hyperllama -g hyperllama {home}/bin && ln -sf /usr/bin/python3 {home}/bin/python")
    facts = {"id": "vllm-0.0.1-cuda", "engine": "vllm", "version": "0.0.1", "variant": "cuda", "path": home}
    sh(f"echo '{json.dumps(facts)}' >{home}/home.json && touch {ENGINES}")
    sh("cp /etc/hyperllama/hyperllamad.toml /root/before.toml")
    sh("printf '[fleet]\\ngpu_wait = \"4s\"\\n' >/etc/hyperllama/hyperllamad.toml && : >/root/began")
    sh("systemctl restart --no-block hyperllamad")
    waiting = "waiting up to 4 s for a GPU: no NVIDIA driver"
    eventually(lambda: show("StatusText") == waiting, within=10, what="STATUS= says what is waited for")
    eventually(lambda: ask("/api/version"), within=30, what="it serves")
    missing = "no GPU can be used: no NVIDIA driver"
    eventually(lambda: missing in show("StatusText"), within=10, what="STATUS=")
    assert missing in sh("hyperllamactl status")
    assert missing in journal()
    assert chat(), "what runs on the processor anyhow is served"
    sh(f"rm -r {home} && touch {ENGINES} && cat /root/before.toml >/etc/hyperllama/hyperllamad.toml")
    sh("systemctl restart hyperllamad")
    eventually(lambda: ask("/api/version"), within=20, what="it serves")
