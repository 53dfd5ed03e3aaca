"""`python -m tests.system.box container`: the image built from packaging/container by buildah, and its daemon run.

Fedora's image comes from a registry; in its place stands the box's tree, which has dnf, rpm and Python of Fedora's
versions.  Without privileges for containers: buildah's chroot isolation.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.system.box.shell import CACHE, ROOT, run, say

PACKAGES = ("buildah",)
STORE = CACHE / "containers"
BASE, IMAGE = "localhost/box:latest", "localhost/hyperllama:latest"
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
# What the entry point runs, as the image's user, until it answers.
_SERVE = """
hyperllamad --config /etc/hyperllama --check-config
hyperllamad --config /etc/hyperllama & daemon=$!
for _ in $(seq 100); do curl -fsS http://127.0.0.1:11434/health >/dev/null 2>&1 && break; sleep 0.2; done
curl -fsS http://127.0.0.1:11434/api/version
hyperllamactl status
id -un
kill $daemon; wait $daemon
"""


def build(tree: Path) -> list[str]:
    """Build, and run what was built; what was seen, line by line.  dist/rpm must be there.  Raises CommandError."""
    shutil.rmtree(STORE, ignore_errors=True)
    buildah = ["buildah", "--root", STORE / "root", "--runroot", STORE / "run", "--storage-driver", "overlay"]
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="container-") as work:
        try:
            say("the image to begin with")
            _base(buildah, tree, Path(work))
            say("buildah bud")
            options = ["--isolation", "chroot", "--network", "host", "--build-arg", f"BASE={BASE}"]
            options += ["--format", "docker"]  # with a health check, which OCI's format does not have
            file = ROOT / "packaging/container/Containerfile"
            run([*buildah, "bud", *options, "--tag", IMAGE, "--file", file, ROOT], log=CACHE / "container.log")
            say("running it")
            container = run([*buildah, "from", IMAGE]).strip()
            script = ["--isolation", "chroot", container, "--", "bash", "-euc", _SERVE]
            said = run([*buildah, "run", *script], log=CACHE / "container-run.log").splitlines()
            config = run([*buildah, "inspect", "--type", "image", "--format", "{{.OCIv1.Config}}", IMAGE])
            return [*said, config]
        finally:
            run([*buildah, "rm", "--all"])
            shutil.rmtree(STORE, ignore_errors=True)


def _base(buildah: list[str | Path], tree: Path, work: Path) -> None:
    container = run([*buildah, "from", "scratch"]).strip()
    root = run([*buildah, "mount", container]).strip()
    run(["cp", "-a", f"{tree}/.", root])
    spec = Path(root) / "tmp/uv/uv.spec"
    spec.parent.mkdir()
    spec.write_text(_UV)
    run(["chroot", root, "sh", "-ec", f"export HOME=/tmp/uv; {_PROVIDE}"], log=work / "uv.log")
    shutil.rmtree(spec.parent)
    # Two plugins that Fedora's image is without: one lacks a program here, the other wants namespaces.
    for plugin in ("etc/dnf/libdnf5-plugins/local.conf", "usr/lib/rpm/macros.d/macros.transaction_unshare"):
        (Path(root) / plugin).unlink()
    run([*buildah, "umount", container])
    run([*buildah, "commit", "--quiet", "--rm", container, BASE])
