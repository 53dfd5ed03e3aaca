"""`python -m tests.system.box container`: the image built as docs/install.md says, its container run and used.

Fedora's image comes from a registry; in its place stands the box's tree, which has dnf, rpm and Python of Fedora's
versions.  The container has no network: the engine comes from a folder of wheels, and its clients are inside.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.system.box.shell import CACHE, ROOT, CommandError, run, say

# runc works beside either version of control groups, crun not where both are mounted.
PACKAGES = ("podman", "buildah", "runc")
STORE = CACHE / "containers"
FILES = ROOT / "packaging" / "container"
PAGE = ROOT / "docs" / "install.md"
BUILD = "podman build -t hyperllama -f packaging/container/Containerfile ."
INSTALL = "podman exec hyperllama hyperllamactl engine install llama_cpp"
NAME, MODEL, READY_WITHIN = "hyperllama", "smollm2:135m", 60.0  # seconds
# What Fedora's repositories have and this tree's do not: a package of that name, with nothing in it.
_UV = """Name: uv
Version: 0
Release: 0
Summary: Stands for Fedora's
License: MIT
BuildArch: noarch
%description
Nothing.
%files
"""
_PROVIDE = "cd /tmp/uv && rpmbuild -bb --quiet --define '_topdir /tmp/uv/rpm' uv.spec && rpm -i rpm/RPMS/noarch/*.rpm"
# Limits that are below those of any machine: to raise one takes a right that root need not have.
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
netns = "none"
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{store}/root"
runroot = "{store}/run"
"""

Seen = tuple[str, bool, str]  # a sentence, whether it is true, and what was said


class Podman:
    """podman and buildah with a store of their own, which is removed afterwards."""

    def __init__(self) -> None:
        shutil.rmtree(STORE, ignore_errors=True)
        STORE.mkdir(parents=True)
        (STORE / "containers.conf").write_text(_CONTAINERS)
        (STORE / "storage.conf").write_text(_STORAGE.format(store=STORE))
        self._environ = {
            "CONTAINERS_CONF": str(STORE / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(STORE / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",  # needs no right to make namespaces
            "BUILDAH_FORMAT": "docker",  # with a health check, which OCI's format does not have
        }

    def __call__(self, *argv: str | Path, log: Path | None = None, **environ: str) -> str:
        return run(argv, log=log, **self._environ, **environ).strip()

    def line(self, command: str) -> str:
        """A line of the page on installing, as it is written there, with the sources where they are."""
        assert command in PAGE.read_text().splitlines(), f"{command} is not in {PAGE}"
        log = CACHE / "container.log"
        return self("bash", "-ec", f"cd {ROOT} && {command}", log=log)

    def inside(self, *argv: str) -> str:
        return self("podman", "exec", NAME, *argv)

    def close(self) -> None:
        for what in ("rm", "rmi"):
            with contextlib.suppress(CommandError):
                self("podman", what, "--all", "--force")
        shutil.rmtree(STORE, ignore_errors=True)


def check(tree: Path, wheels: Path, model: Path) -> Iterator[Seen]:
    """Build, run, install, chat, stop.  dist/rpm must be there.  Raises CommandError."""
    podman = Podman()
    try:
        say("the image to begin with")
        _base(podman, tree)
        say("podman build")
        podman.line(BUILD)
        say("podman run")
        yield from _run(podman, wheels)
        say("an engine and a model")
        yield from _use(podman, model)
        yield from _stop(podman)
    finally:
        podman.close()


def _run(podman: Podman, wheels: Path) -> Iterator[Seen]:
    """With what the quadlet says, but for the port."""
    stated = (FILES / "hyperllama.container").read_text()
    options = ["--shm-size", _stated(stated, "ShmSize"), "--stop-timeout", _stated(stated, "StopTimeout")]
    options += ["--cap-drop", _stated(stated, "DropCapability"), "--security-opt", "no-new-privileges"]
    for volume in re.findall(r"^Volume=(.+)$", stated, re.MULTILINE):
        options += ["--volume", volume]
    options += ["--volume", f"{wheels}:/srv/wheels:ro"]
    options += ["--env", "PIP_NO_INDEX=1", "--env", "PIP_FIND_LINKS=/srv/wheels"]
    with tempfile.TemporaryDirectory() as work, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(f"{work}/notify")
        notified.settimeout(READY_WITHIN)
        argv = ["podman", "run", "--detach", "--name", NAME, "--sdnotify", "container", *options]
        podman(*argv, _stated(stated, "Image"), NOTIFY_SOCKET=f"{work}/notify")
        said = ""
        with contextlib.suppress(TimeoutError):
            while "READY=1" not in said:
                said += notified.recv(4096).decode() + "\n"
    yield "READY comes from the daemon in the container", "READY=1" in said, said + podman("podman", "logs", NAME)
    said = podman.inside("id", "-un")
    yield "it runs as the service's user", said == "hyperllama", said
    said = podman.inside("curl", "-fsS", "http://127.0.0.1:11434/api/version")
    yield "it answers", '"version"' in said, said
    said = podman("podman", "healthcheck", "run", NAME)
    yield "podman finds it healthy", "unhealthy" not in said, said
    said = podman("podman", "image", "inspect", "--format", "{{.Config}}", NAME)
    yield (
        "the image says which port and which directories are its own",
        "11434/tcp" in said and "/var/lib" in said,
        said,
    )


def _use(podman: Podman, model: Path) -> Iterator[Seen]:
    podman.line(INSTALL)
    said = podman.inside("hyperllamactl", "engine", "list", "-q")
    yield "an engine is installed by the page's own line", "llama_cpp" in said, said
    store = Path(podman("podman", "volume", "inspect", "--format", "{{.Mountpoint}}", "hyperllama-state"))
    owner = (store / "engines").stat()
    directory = store / "models" / MODEL.replace(":", "@")
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(next(model.glob("*.gguf")), directory)
    for path in (directory.parent, directory, *directory.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    said = podman.inside("hyperllamactl", "load", MODEL)
    yield "a model is loaded", "is ready" in said, said
    body = f'{{"model": "{MODEL}", "prompt": "What is the capital of France?", "stream": false}}'
    said = podman.inside("curl", "-fsS", "http://127.0.0.1:11434/api/generate", "-d", body)
    yield "and answers", "Paris" in said, said


def _stop(podman: Podman) -> Iterator[Seen]:
    podman("podman", "stop", NAME)
    said = podman("podman", "inspect", "--format", "{{.State.ExitCode}}", NAME)
    yield "it stops with exit status 0", said == "0", said + podman("podman", "logs", "--tail", "20", NAME)


def _stated(quadlet: str, key: str) -> str:
    found = re.search(rf"^{key}=(.+)$", quadlet, re.MULTILINE)
    assert found, f"{FILES}/hyperllama.container has no {key}"
    return found[1]


def _base(podman: Podman, tree: Path) -> None:
    """Under the name that the Containerfile begins with."""
    named = re.search(r"^ARG BASE=(\S+)$", (FILES / "Containerfile").read_text(), re.MULTILINE)
    assert named, "the Containerfile has no base"
    container = podman("buildah", "from", "scratch")
    root = Path(podman("buildah", "mount", container))
    run(["cp", "-a", f"{tree}/.", root])
    spec = root / "tmp/uv/uv.spec"
    spec.parent.mkdir()
    spec.write_text(_UV)
    run(["chroot", root, "sh", "-ec", f"export HOME=/tmp/uv; {_PROVIDE}"])
    shutil.rmtree(spec.parent)
    # Two plugins that Fedora's image is without: one lacks a program here, the other wants namespaces.
    for plugin in ("etc/dnf/libdnf5-plugins/local.conf", "usr/lib/rpm/macros.d/macros.transaction_unshare"):
        (root / plugin).unlink()
    podman("buildah", "umount", container)
    podman("buildah", "commit", "--quiet", "--rm", container, f"localhost/{named[1]}")
