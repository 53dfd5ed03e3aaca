"""Tier 1: the tree booted by systemd-nspawn, in a mount namespace that sees control groups of version 2 only.

A copy-on-write layer lies over the tree, so that the tree never changes and a reboot finds what was written before.
Needs root and namespaces.  What is not enforced here, for want of controllers: memory, task and CPU limits (uml.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.system.box import leash
from tests.system.box.shell import CACHE, run

CGROUPS = Path("/sys/fs/cgroup")
# systemd 258 and later refuse a machine whose control groups are of version 1 in part: show them version 2 alone.
# CAP_BPF and the bpf call: without them DeviceAllow=, IPAddressDeny= and SocketBindDeny= are not enforced.
_BOOT = """
root=$1 work=$2 name=$3
shift 3
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/$name
echo $$ >/sys/fs/cgroup/$name/cgroup.procs
mount -t overlay overlay -o lowerdir=$root,upperdir=$work/upper,workdir=$work/overlay $work/merged
exec systemd-nspawn --quiet --boot --directory=$work/merged --machine=$name --register=no --keep-unit \\
    --private-network --capability=CAP_BPF --system-call-filter=bpf --console=pipe \\
    --resolv-conf=off --timezone=off --link-journal=no "$@"
"""


def possible() -> str:
    """Why this tier cannot be used here; "" when it can."""
    if os.geteuid() != 0:
        return "it needs root"
    attempt = (
        "umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/hyperllama-try"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "--propagation", "private", "sh", "-c", attempt],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else f"namespaces: {done.stderr.strip()}"


class Box:
    """One machine.  `binds` are directories of the host that it sees, read-only."""

    def __init__(self, tree: Path, name: str, binds: dict[Path, str]) -> None:
        self._tree = tree
        self._name = f"hyperllama-{name}-{os.getpid()}"
        self._binds = binds
        self._work = CACHE / "boxes" / f"{name}.{os.getpid()}"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def up(self) -> None:
        """Boot, and wait until systemd says that it runs."""
        for part in ("upper", "overlay", "merged"):
            (self._work / part).mkdir(parents=True, exist_ok=True)
        binds = [f"--bind-ro={source}:{target}" for source, target in self._binds.items()]
        command = ["unshare", "--mount", "--propagation", "private", "bash", "-euc", _BOOT, "boot"]
        with (self._work / "console").open("ab") as console:
            self._nspawn = leash.start([*command, str(self._tree), str(self._work), self._name, *binds], output=console)
        self._leader = self._wait(self._find_leader, "a first process")
        self._wait(self._is_running, "a running system")

    def inside(self, argv: Sequence[str], *, limit: float = 600) -> subprocess.CompletedProcess[str]:
        """Run as root in all of its namespaces."""
        return self._enter(["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"], argv, limit)

    def beside(self, argv: Sequence[str], *, limit: float = 600) -> subprocess.CompletedProcess[str]:
        """Run with this machine's files and programs, but on the box's network: a client from outside."""
        return self._enter(["-n"], argv, limit)

    def shut(self) -> None:
        """Power off; up() boots it again with all that it had on its disk."""
        if self._nspawn is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.inside(["systemctl", "poweroff"], limit=20)
        try:
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            os.kill(self._leader, signal.SIGKILL)  # takes its whole namespace with it
            self._nspawn.wait(30)
        self._nspawn = None
        self._remove_cgroups()

    def down(self) -> None:
        """Power off and forget."""
        self.shut()
        shutil.rmtree(self._work, ignore_errors=True)

    def console(self) -> str:
        return (self._work / "console").read_text(errors="replace")[-4000:]

    def _enter(self, namespaces: Sequence[str], argv: Sequence[str], limit: float) -> subprocess.CompletedProcess[str]:
        command = ["nsenter", "-t", str(self._leader), *namespaces, "--", *argv]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=limit, check=False,
        )  # fmt: skip

    def _wait(self, look: object, what: str, within: float = 90) -> int:
        assert callable(look)
        deadline = time.monotonic() + within
        while not (found := look()):
            assert self._nspawn is not None
            if self._nspawn.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"the box has not come to {what}:\n{self.console()}")
            time.sleep(0.1)
        return int(found)

    def _find_leader(self) -> int:
        """systemd itself: the child of nspawn, which took the place of our shell."""
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return int(child)
        return 0

    def _is_running(self) -> bool:
        state = self.inside(["systemctl", "is-system-running"]).stdout.strip()
        return state in {"running", "degraded"}

    def _remove_cgroups(self, within: float = 10) -> None:
        """Its processes may still be ending: nspawn's end is not theirs."""
        mounted = run(["findmnt", "-t", "cgroup2", "-n", "-o", "TARGET"]).split()
        deadline = time.monotonic() + within
        for top in (Path(root) / self._name for root in mounted[:1]):
            while top.exists() and time.monotonic() < deadline:
                for group in (*sorted(top.rglob("*/"), reverse=True), top):
                    with contextlib.suppress(OSError):
                        group.rmdir()
                time.sleep(0.1)
