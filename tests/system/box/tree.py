"""The root tree that the machine boots: Debian testing, whose systemd, rpm and Python are as new as Fedora's.

Made once by mmdebstrap (a minute or two, 600 MB) and kept in .cache/system/root until what it is made from changes.  A
package of our own, fedora/standin.spec, makes it look like Fedora to the package under test.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tests.system.box.shell import CACHE, run, say

SUITE = "forky"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "passwd", "procps", "iproute2", "curl", "ca-certificates"),
    *("rpm", "rpmlint", "file", "man-db", "zsh", "fish", "bash-completion"),
    *("python3", "python3-venv", "python3-pip", "python3-setuptools", "python3-wheel", "python3-packaging"),
    # What Fedora packages of pyproject.toml's dependencies; the rest the package brings itself.
    *("python3-aiohttp", "python3-anyio", "python3-huggingface-hub", "python3-hypercorn", "python3-msgspec"),
    *("python3-prometheus-client", "python3-quart", "python3-sdnotify", "python3-tomli-w", "python3-uvloop"),
    *("python3-zstandard", "python3-jeepney"),
    # What docs/install.md is followed with, and who may ask logind to wait.
    *("dnf5", "firewalld", "podman", "polkitd"),
    # What engines need of the machine.
    *("libgomp1", "libnuma1"),
)
STANDIN = Path(__file__).with_name("fedora") / "standin.spec"
_FINISH = """
export HOME=/tmp/standin
cd $HOME
rpmbuild -bb --quiet --define "_topdir $HOME/rpm" standin.spec
rpm --initdb
rpm -i rpm/RPMS/noarch/*.rpm
ln -s dnf5 /usr/bin/dnf
# Debian starts what it installs; Fedora starts neither of these unasked, and boots are to be short.
systemctl disable firewalld.service podman.service podman.socket podman-auto-update.timer podman-restart.service || true
rm -rf $HOME /var/cache/apt/archives/*.deb /var/lib/apt/lists/* /usr/share/doc/* /usr/share/locale/*
: >/etc/machine-id
"""


def make() -> Path:
    """The tree, made if it is not there or out of date."""
    tree, stamp = CACHE / "root", CACHE / "root.key"
    key = hashlib.sha256("\n".join((SUITE, *PACKAGES, _FINISH, STANDIN.read_text())).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == key:
        return tree
    say("making the root tree (once: a minute or two)")
    stamp.unlink(missing_ok=True)
    shutil.rmtree(tree, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    # A mirror may be frozen, and testing's index expire.
    expired = '--aptopt=Acquire::Check-Valid-Until "false"'
    packages = f"--include={','.join(PACKAGES)}"
    run(["mmdebstrap", "--quiet", "--variant=minbase", expired, packages, SUITE, tree, _mirror()])
    home = tree / "tmp" / "standin"
    home.mkdir()
    shutil.copy(STANDIN, home / "standin.spec")
    run(["chroot", tree, "sh", "-ec", _FINISH], log=CACHE / "standin.log")
    stamp.write_text(key)
    return tree


def _mirror() -> str:
    """The one this machine's apt is set up with."""
    if stated := os.environ.get("DEBIAN_MIRROR"):
        return stated
    listed = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"])
    return next((line for line in listed.split() if "security" not in line), "http://deb.debian.org/debian/")
