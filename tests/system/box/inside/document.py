"""docs/install.md, followed line by line on a machine of its own: a command that is written there is run here.

What cannot be run stands in LEFT_OUT with the reason; a command that is neither known to run nor left out fails the
check, and so does a reason for a command that is not written any more.  Some are said differently here: INSTEAD.
"""

from __future__ import annotations

import atexit
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import hub
from lib import ASIDE, BOX, ask, chat, check, eventually, instances, processes, sh, show

PAGE = Path(BOX) / "install.md"
ROOT = "/root/hyperllama"  # as if the sources lay there
REPOSITORY = "bartowski/SmolLM2-135M-Instruct-GGUF"
MODEL = f"hf.co/{REPOSITORY}"
MEMBER = "member"
AS_MEMBER = f"runuser -u {MEMBER} --"
UNTIL_THE_END = ExitStack()

LEFT_OUT = {
    "make rpm": "needs a network and a mirror of Debian; `make rpm` itself has built what is installed here",
    "make run": "needs a network; `make test` begins with it",
    "podman build -t hyperllama -f packaging/container/Containerfile .": "`make container` runs it",
    "podman exec hyperllama hyperllamactl engine install llama_cpp": "`make container` runs it",
}
INSTEAD = {
    # The address of what was built.
    "sudo dnf install ./dist/rpm/hyperllama-0.1.0-1.*.noarch.rpm": (
        f"cd {ROOT} && sudo dnf install -y ./dist/rpm/hyperllama-0.1.0-1.*.noarch.rpm"
    ),
    "sudo usermod -aG hyperllama $USER": f"USER={MEMBER}; sudo usermod -aG hyperllama $USER",
    **{
        f"hyperllamactl {line}": f"{AS_MEMBER} hyperllamactl {line}"
        for line in ("engine install llama_cpp", f"pull {MODEL}", "list", f"load {MODEL}")
    },
    # What the page says is written in the editor.
    "sudo systemctl edit hyperllamad": (
        "printf '[Service]\\nEnvironment=PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/wheels\\n'"
        " | sudo systemctl edit --stdin hyperllamad"
    ),
    "sudo cp packaging/container/hyperllama.container /etc/containers/systemd/": (
        f"cd {ROOT} && sudo cp packaging/container/hyperllama.container /etc/containers/systemd/"
    ),
    "sudo systemctl daemon-reload && sudo systemctl start hyperllama": (
        "sudo systemctl daemon-reload && systemctl cat hyperllama.service"  # to start it, it would need the image
    ),
    "sudo dnf remove hyperllama": "sudo dnf remove -y hyperllama",
}
FIRST = "sudo systemctl edit hyperllamad"  # there is no network here: the wheels come before the engine
FIREWALL = "sudo firewall-cmd --permanent --zone=home --add-service=hyperllama && sudo firewall-cmd --reload"
NETFILTER = 12  # of netlink(7)


def _has_packet_filter() -> bool:
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER).close()
    except OSError:
        return False
    return True


if not _has_packet_filter():
    LEFT_OUT[FIREWALL] = "the kernel of this machine has no packet filter"


def _commands() -> Iterator[str]:
    """Every command of the page's blocks, in order, comments taken off."""
    for block in re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if command := re.sub(r"\s+#.*", "", line).strip():
                yield command


def _ordered() -> list[str]:
    """As they are run: a machine without a network is set up for that before an engine is installed."""
    commands = list(_commands())
    offline = commands.index(FIRST)
    engine = commands.index("hyperllamactl engine install llama_cpp")
    moved = commands[offline : offline + 2]
    return [*commands[:engine], *moved, *commands[engine:offline], *commands[offline + 2 :]]


def _follow(command: str) -> None:
    sh(INSTEAD.get(command, command), limit=300)
    if after := AFTER.get(command):
        after()


def _installed() -> None:
    assert sh("rpm -V hyperllama") == ""


def _serves() -> None:
    eventually(lambda: ask("/api/version"), within=20, what="it serves")


def _grouped() -> None:
    assert "hyperllama" in sh(f"id -nG {MEMBER}").split()


def _engine() -> None:
    assert "llama_cpp" in sh("hyperllamactl engine list -q")


def _pulled() -> None:
    assert MODEL in sh(f"{AS_MEMBER} hyperllamactl list")


def _loaded() -> None:
    assert [row["state"] for row in instances()] == ["ready"], instances()
    assert chat(model=MODEL)


def _adopts() -> None:
    assert show("KillMode") == "process"


def _open() -> None:
    assert "hyperllama" in sh("firewall-cmd --zone=home --list-services").split()
    assert "hyperllama" not in sh("firewall-cmd --zone=public --list-services").split(), "only where it was asked for"


def _quadlet() -> None:
    said = sh("QUADLET_UNIT_DIRS=/etc/containers/systemd /usr/libexec/podman/quadlet -dryrun 2>&1")
    for line in ("--name hyperllama", "--publish 127.0.0.1:11434:11434", "--sdnotify=container", "Type=notify"):
        assert line in said, (line, said)


def _gone() -> None:
    assert processes() == []
    assert sh("test -d /var/lib/hyperllama/engines && echo kept") == "kept"


AFTER = {
    "sudo dnf install ./dist/rpm/hyperllama-0.1.0-1.*.noarch.rpm": _installed,
    "sudo systemctl enable --now hyperllamad": _serves,
    "sudo usermod -aG hyperllama $USER": _grouped,
    "sudo systemctl restart hyperllamad": _serves,
    "hyperllamactl engine install llama_cpp": _engine,
    f"hyperllamactl pull {MODEL}": _pulled,
    f"hyperllamactl load {MODEL}": _loaded,
    "sudo systemctl daemon-reload": _adopts,
    FIREWALL: _open,
    "sudo systemctl daemon-reload && sudo systemctl start hyperllama": _quadlet,
    "sudo dnf remove hyperllama": _gone,
}


@check("a machine as its user finds it: the sources, a folder of wheels, a firewall, somebody without rights")
def _() -> None:
    sh(f"mkdir -p {ROOT}/dist && ln -s {BOX}/rpms/1 {ROOT}/dist/rpm && ln -s {BOX}/packaging {ROOT}/packaging")
    sh(f"ln -s {BOX}/wheels /srv/wheels && mkdir -p /etc/containers/systemd")
    sh(f"useradd --create-home {MEMBER}")
    if FIREWALL not in LEFT_OUT:
        sh("systemctl start firewalld")
    # A plugin of dnf's that Fedora does not install by default, and Debian does without what it needs.
    sh("sed -i 's/^enabled = host-only/enabled = false/' /etc/dnf/libdnf5-plugins/local.conf")
    # Of root's rights the page speaks in sudo's words.
    sh("printf '#!/bin/sh\\nexec \"$@\"\\n' >/usr/local/bin/sudo && chmod +x /usr/local/bin/sudo")


@check("a model hub that speaks the real one's HTTP, with the demo model's bytes, and the service told where it is")
def _() -> None:
    stand_in = UNTIL_THE_END.enter_context(hub.serve())
    atexit.register(UNTIL_THE_END.close)
    (model,) = Path(BOX, "model").glob("*.gguf")
    stand_in.put(REPOSITORY, {"SmolLM2-135M-Instruct-Q4_1.gguf": model.read_bytes()})
    drop_in = Path("/etc/systemd/system/hyperllamad.service.d/hub.conf")
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text(f"[Service]\nEnvironment=HF_ENDPOINT={stand_in.url}\n")


@check("every command that is left out, said differently or looked at afterwards stands on the page")
def _() -> None:
    written = set(_commands())
    for named in (LEFT_OUT, INSTEAD, AFTER):
        assert named.keys() <= written, named.keys() - written


for _one in _ordered():
    if _one in LEFT_OUT:
        ASIDE.append(f"`{_one}`: {LEFT_OUT[_one]}")
    else:
        check(f"`{_one}`")(lambda command=_one: _follow(command))
