"""The memory limit of one engine, where the kernel enforces it.  The engines are stand-ins that leak as told."""

from __future__ import annotations

from typing import Any

from lib import BOX, ask, check, eventually, instances, running, sh, show

MODELS = "/etc/hyperllama/models.d"


def generate(model: str, words: int) -> Any:
    body = {"model": model, "prompt": "Count.", "stream": False, "options": {"num_predict": words}}
    return ask("/api/generate", body)


def instance(model: str) -> dict[str, Any]:
    return next(row for row in instances() if row["name"] == f"{model}:latest")


@check("two engines run, one of them with a limit")
def _() -> None:
    sh(f"rpm -i {BOX}/rpms/1/hyperllama-0*.noarch.rpm")
    sh(f"install -m 0755 {BOX}/standin/llama-server /usr/local/bin/")
    sh(f"install -o hyperllama -m 0640 {BOX}/standin/*.gguf /var/lib/hyperllama/")
    for name, more in (("calm", ""), ("hog", 'memory_max = "96MiB"\\nargs = ["--leak", "8"]\\n')):
        sh(f'printf \'name = "{name}"\\npath = "/var/lib/hyperllama/{name}.gguf"\\n{more}\' >{MODELS}/{name}.toml')
    sh("systemctl enable --now hyperllamad")
    assert generate("calm", 3)["done"]
    assert generate("hog", 2)["done"]
    group = sh(f"cat /proc/{instance('hog')['pid']}/cgroup").partition("::")[2]
    assert sh(f"cat /sys/fs/cgroup{group}/memory.max") == str(96 << 20)


@check("the one that reaches its limit dies alone, and its cause says so")
def _() -> None:
    daemon, calm, hog = int(show("MainPID")), instance("calm")["pid"], instance("hog")["pid"]
    try:
        generate("hog", 500)  # its answer may be continued by the engine's next life, or not
    except AssertionError as failure:
        assert "host memory limit" in str(failure), failure
    eventually(lambda: not running(hog), within=10, what="the hog is gone")
    assert int(show("MainPID")) == daemon and running(daemon), "the daemon is not touched"
    assert instance("calm")["pid"] == calm and running(calm), "nor is the other engine"
    eventually(lambda: "host memory limit" in sh("journalctl -u hyperllamad -o cat"), within=15, what="the log says it")


@check("the other serves on, and the hog comes back")
def _() -> None:
    assert generate("calm", 3)["done"]
    assert generate("hog", 2)["done"]
    assert sh("systemctl is-active hyperllamad") == "active"
