"""Tier 2: the tree booted by User-Mode Linux, which is a kernel in a process: no namespaces, no privileges.

Slower (about five times), but here memory, task and CPU limits are the real ones.  A boot runs a list of stages and
powers off; the next boot finds the disk as the last one left it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.system.box import leash
from tests.system.box.shell import CACHE, run, say

PROGRAM = "linux.uml"
PACKAGE = "user-mode-linux"
MEMORY = "2G"
SLOWER = 5  # so much longer may things take
# /dev/tty0 is this process's standard output.
_BOOT = """
exec >/dev/tty0 2>&1 </dev/null
export BOX_SLOW={slower}
systemctl start multi-user.target
for stage in {stages}; do echo "@stage $stage"; python3 -B /opt/box/inside $stage; done
"""
_UNPACK = "/bin/sh -c 'mkdir -p /opt/box && tar -x -f /dev/ubdb -C /opt/box && exec sh /opt/box/boot.sh'"


class Uml:
    """One machine, with a disk of its own."""

    def __init__(self, tree: Path, given: Path, *, only: Sequence[str] = ()) -> None:
        """`only`: the parts of `given` that it needs; all of them, if none is named."""
        self._image = _image(tree)
        self._given = given
        self._only = tuple(only) or tuple(path.name for path in given.iterdir())
        self._work = Path(tempfile.mkdtemp(dir=CACHE, prefix="uml-", suffix=f".{os.getpid()}"))

    def stages(self, *names: str, limit: float = 3600) -> str:
        """Boot, run the stages, power off; everything they wrote."""
        disk = self._work / "given.tar"
        self._pack(disk, names)
        command = [
            *(PROGRAM, f"mem={MEMORY}", f"umid=box{os.getpid()}", f"uml_dir={self._work}"),
            *(f"ubd0={self._work}/cow,{self._image}", f"ubd1r={disk}", "root=/dev/ubda", "rootfstype=ext4", "rw"),
            *("con0=null,fd:1", "con1=null", "con=null", "ssl=null", "quiet", "TERM=dumb"),
            *("systemd.show_status=0", "systemd.getty_auto=no", f'systemd.run="{_UNPACK}"'),
            *("systemd.run_success_action=poweroff", "systemd.run_failure_action=poweroff"),
        ]
        machine = leash.start(command, output=subprocess.PIPE, TMPDIR="/dev/shm")
        try:
            return machine.communicate(timeout=limit)[0].decode(errors="replace")
        finally:
            machine.kill()  # it has powered off, or something is wrong
            machine.wait()

    def down(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)

    def _pack(self, disk: Path, stages: Sequence[str]) -> None:
        boot = self._work / "boot.sh"
        boot.write_text(_BOOT.format(slower=SLOWER, stages=" ".join(stages)))
        with tarfile.open(disk, "w") as archive:
            archive.add(boot, "boot.sh")
            for name in self._only:
                archive.add(self._given / name, name)
        with disk.open("ab") as file:
            file.truncate((disk.stat().st_size + 0xFFFFF) & ~0xFFFFF)


def _image(tree: Path) -> Path:
    """A file system with the tree in it, made when the tree is newer."""
    image, key = CACHE / "root.img", CACHE / "root.key"
    if not image.exists() or image.stat().st_mtime < key.stat().st_mtime:
        say("making a disk image of the tree")
        fresh = image.with_suffix(".fresh")
        fresh.unlink(missing_ok=True)
        run(["mke2fs", "-q", "-t", "ext4", "-d", tree, fresh, "4G"])
        fresh.replace(image)
    return image
