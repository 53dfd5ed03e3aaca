"""`python -m tests.system.box test|rpm`: the package on a whole machine, or only the package.

Chooses the tier by itself and says which; ends with `N passed, N failed`.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.system.box import nspawn, rpms, supplies, tree
from tests.system.box.nspawn import Box
from tests.system.box.shell import CACHE, ROOT, CommandError, say

MODEL = "smollm2:135m"


@dataclass
class Score:
    """What passed and what did not."""

    passed: int = 0
    failed: int = 0

    def add(self, *, ok: bool, sentence: str, said: str) -> None:
        """One check made from outside."""
        self.passed += ok
        self.failed += not ok
        print(f"ok    {sentence}" if ok else f"FAIL  {sentence}\n      {said[-2000:]}", flush=True)

    def stage(self, box: Box, name: str) -> None:
        """The checks of inside/NAME.py."""
        say(name)
        began = time.monotonic()
        said = box.inside(["python3", "-B", "/opt/box/inside", name]).stdout
        print(re.sub(r"^@@.*\n?", "", said, flags=re.MULTILINE), end="", flush=True)
        before = self.failed
        if counted := re.search(r"^@@ (\d+) (\d+)$", said, re.MULTILINE):
            self.passed += int(counted[1])
            self.failed += int(counted[2])
        else:
            self.add(
                ok=False, sentence=f"{name} came to its end", said=f"after {time.monotonic() - began:.0f} s: {said}"
            )
        if self.failed > before:
            journal = box.inside(["journalctl", "-u", "hyperllamad", "--no-pager", "-n", "40", "-o", "short-precise"])
            print(journal.stdout, flush=True)


def rpm() -> int:
    """Both flavours and their sources, in dist/rpm."""
    supplies.install_host_packages(*supplies.HOST_PACKAGES)
    root, out = tree.make(), ROOT / "dist" / "rpm"
    bundled = rpms.build(root, CACHE / "made-bundled", bundled=True)
    # Their source package is the same but for the flavour; Fedora's own is the one to publish.
    built = [*(path for path in bundled if not path.name.endswith(".src.rpm")), *rpms.build(root, CACHE / "made")]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in built:
        shutil.copy(path, out)
        print(out / path.name)
    return 0


def test() -> int:
    """Everything; the exit status."""
    supplies.install_host_packages(*supplies.HOST_PACKAGES)
    if reason := nspawn.possible():
        say(f"tier nspawn is not possible here: {reason}")
        return 1
    say("tier nspawn: real systemd in namespaces; memory, task and CPU limits are not enforced in it")
    root = tree.make()
    given = supplies.gather(root)
    score = Score()
    _package(root, given, score)
    _bundled(root, given, score)
    print(f"{score.passed} passed, {score.failed} failed")
    return 1 if score.failed else 0


def _package(root: Path, given: Path, score: Score) -> None:
    box = Box(root, "package", {given: "/opt/box"})
    try:
        say("boot")
        box.up()
        for stage in ("install", "serve"):
            score.stage(box, stage)
        done = box.beside([sys.executable, "-m", "tests.system.box.client", MODEL])
        score.add(ok=done.returncode == 0, sentence="the ollama Python client chats from outside", said=done.stdout)
        for stage in ("reload", "faults", "upgrade"):
            score.stage(box, stage)
        say("reboot")
        box.shut()
        box.up()
        score.stage(box, "reboot")
    except TimeoutError as failure:
        score.add(ok=False, sentence="the box boots", said=str(failure))
    finally:
        box.down()


def _bundled(root: Path, given: Path, score: Score) -> None:
    box = Box(root, "bundled", {given: "/opt/box"})
    try:
        box.up()
        score.stage(box, "bundled")
    finally:
        box.down()


if __name__ == "__main__":
    try:
        sys.exit({"rpm": rpm, "test": test}[sys.argv[1]]())
    except CommandError as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
