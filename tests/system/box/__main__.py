"""`python -m tests.system.box test|engines|rpm|container`: the package on a whole machine, or a part of that by itself.

Chooses the tier by itself (`test uml`: the one without namespaces) and says which; ends with `N passed, N failed`.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.system.box import container, engines, leash, nspawn, rpms, supplies, tree, uml
from tests.system.box.nspawn import Box
from tests.system.box.shell import CACHE, ROOT, CommandError, say
from tests.system.box.uml import Uml

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

    def count(self, said: str, stages: int, sentence: str) -> None:
        """What so many stages wrote."""
        print(re.sub(r"^@@.*\n?", "", said, flags=re.MULTILINE), end="", flush=True)
        counted = re.findall(r"^@@ (\d+) (\d+)\s*$", said, re.MULTILINE)
        for passed, failed in counted:
            self.passed += int(passed)
            self.failed += int(failed)
        if len(counted) != stages:
            self.add(ok=False, sentence=sentence, said="")

    def stage(self, box: Box, name: str) -> None:
        """The checks of inside/NAME.py."""
        say(name)
        began = time.monotonic()
        said = box.inside(["python3", "-B", "/opt/box/inside", name]).stdout
        before = self.failed
        self.count(said, 1, f"{name} came to its end after {time.monotonic() - began:.0f} s")
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


def image() -> int:
    """The container's image, built, run and used."""
    supplies.install_host_packages(*supplies.HOST_PACKAGES, *container.PACKAGES)
    if not list((ROOT / "dist" / "rpm").glob("hyperllama-*.noarch.rpm")):
        rpm()
    score = Score()
    root = tree.make()
    for sentence, ok, said in container.check(root, *supplies.engine_and_model()):
        score.add(ok=ok, sentence=sentence, said=said)
    print(f"{score.passed} passed, {score.failed} failed")
    return 1 if score.failed else 0


def test() -> int:
    """Everything; the exit status."""
    supplies.install_host_packages(*supplies.HOST_PACKAGES, uml.PACKAGE)
    reason = "not asked for" if "uml" in sys.argv else nspawn.possible()
    root = tree.make()
    given = supplies.gather(root, plain=bool(reason))
    score = Score()
    if reason:
        say(f"tier User-Mode Linux for everything; nspawn: {reason}")
        _everything_in_uml(root, given, score)
    else:
        say("tier nspawn: systemd in namespaces; beside it tier User-Mode Linux, whose kernel enforces memory limits")
        with ThreadPoolExecutor() as beside:
            limits = beside.submit(_limits, root, given)
            followed = beside.submit(_document, root, given)
            _bundled(root, given, score)
            _package(root, given, score)
            say("limits, in User-Mode Linux")
            score.count(limits.result(), 1, "limits came to an end")
            say("docs/install.md, followed")
            score.count(followed.result(), 1, "the page came to an end")
    print(f"{score.passed} passed, {score.failed} failed")
    return 1 if score.failed else 0


def real_engines() -> int:
    """vLLM, MAX and llama.cpp, as `make engines` has installed them here, under the sandbox of the unit."""
    root = tree.make()
    given = supplies.gather(root, plain=False)
    score = Score()
    box = Box(root, "engines", {given: "/opt/box", **engines.binds()})
    try:
        box.up()
        score.stage(box, "engines")
    finally:
        box.down()
    print(f"{score.passed} passed, {score.failed} failed")
    return 1 if score.failed else 0


def _everything_in_uml(root: Path, given: Path, score: Score) -> None:
    _in_uml(root, given, score, ["limits"])
    _in_uml(root, given, score, ["bundled"])
    _in_uml(root, given, score, ["document"])
    _in_uml(root, given, score, ["install", "serve", "reload", "machine", "faults", "upgrade"], ["reboot"])


def _limits(root: Path, given: Path) -> str:
    machine = Uml(root, given, only=["inside", "standin", "rpms"])
    try:
        return machine.stages("limits")
    finally:
        machine.down()


def _in_uml(root: Path, given: Path, score: Score, *boots: list[str]) -> None:
    """Each boot runs its stages on the disk that the one before left."""
    machine = Uml(root, given)
    try:
        for stages in boots:
            score.count(machine.stages(*stages), len(stages), f"{', '.join(stages)} came to an end")
    finally:
        machine.down()


def _document(root: Path, given: Path) -> str:
    """docs/install.md, on a machine of its own; what was written."""
    box = Box(root, "document", {given: "/opt/box"})
    try:
        box.up()
        return box.inside(["python3", "-B", "/opt/box/inside", "document"]).stdout
    except TimeoutError as failure:
        return f"FAIL  the box boots: {failure}\n@@ 0 1\n"
    finally:
        box.down()


def _package(root: Path, given: Path, score: Score) -> None:
    box = Box(root, "package", {given: "/opt/box"})
    try:
        say("boot")
        box.up()
        for stage in ("install", "serve"):
            score.stage(box, stage)
        done = box.beside([sys.executable, "-m", "tests.system.box.client", MODEL])
        score.add(ok=done.returncode == 0, sentence="the ollama Python client chats from outside", said=done.stdout)
        for stage in ("reload", "machine", "faults", "upgrade"):
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


def main() -> int:
    """The exit status; 128 + the signal's number when it was asked to end."""
    leash.hold()
    leash.sweep("uml-*", "boxes/*")
    try:
        return {"rpm": rpm, "test": test, "engines": real_engines, "container": image}[sys.argv[1]]()
    except CommandError as problem:
        print(problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
