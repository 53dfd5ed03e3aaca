"""Is the suite awake?  A fix is taken out of a copy of the sources, and the test that belongs to it must fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.faults.report import Row

ROOT = Path(__file__).parent.parent.parent


class Mutant(NamedTuple):
    what: str  # that is taken out
    file: str
    old: str
    new: str
    test: str


MUTANTS = (
    Mutant(
        "a stopped process is looked for",
        "hyperllamad/core/progress.py",
        "if self._stopped >= limits.stopped:",
        "if self._stopped >= 1e9 * limits.stopped:",
        "tests/core/test_progress.py",
    ),
    Mutant(
        "time in which nobody looked does not count",
        "hyperllamad/core/progress.py",
        "min(look.at - last.at, self.limits.longest_step)",
        "look.at - last.at",
        "tests/core/test_progress.py",
    ),
    Mutant(
        "short prompts are no measure for long ones",
        "hyperllamad/core/progress.py",
        "longer = max(1.0, unread / self.longest_prompt)",
        "longer = 1.0",
        "tests/core/test_progress.py",
    ),
    Mutant(
        "a token is asked for when the health check is silent",
        "hyperllamad/supervision/health.py",
        "if not well or idle >= self._pace.idle:",
        "if False:",
        "tests/supervision/test_health.py",
    ),
    Mutant(
        "an answer goes on behind what was said",
        "hyperllamad/front/resumable.py",
        '"prompt": [*prompt, *said]',
        '"prompt": [*prompt]',
        "tests/faults/test_continued.py",
    ),
    Mutant(
        "an engine that kills each answer comes to an end",
        "hyperllamad/front/continuation.py",
        "if not self._begun or self._deaths == MOST:",
        "if False:",
        "tests/faults/test_continued.py",
    ),
    Mutant(
        "a slow client is no fault of the engine",
        "hyperllamad/front/relay.py",
        "work.waiting = False",
        "work.waiting = True",
        "tests/front/test_ollama_stream.py",
    ),
    Mutant(
        "a client that reads nothing lets go of what others wait for",
        "hyperllamad/front/stream_body.py",
        "elif now - since >= told.unread and told.wanted():",
        "elif False:",
        "tests/front/test_hang_ups.py",
    ),
    Mutant(
        "a stopped guard is let go on",
        "hyperllamad/supervision/child.py",
        "            self._rouse()",
        "            pass",
        "tests/supervision/test_child.py",
    ),
    Mutant(
        "memory that does not come back is named",
        "hyperllamad/core/ledger.py",
        "self.missing += self._owes(one, one.ended_at)",
        "pass",
        "tests/supervision/test_missing_memory.py",
    ),
    Mutant(
        "the death of a worker is noticed",
        "hyperllamad/supervision/vital.py",
        "watches.cancel_scope.cancel()",
        "pass",
        "tests/supervision/test_faults_serving.py",
    ),
    Mutant(
        "what lives leave in circles is freed",
        "hyperllamad/supervision/leftovers.py",
        "gc.collect()",
        "pass",
        "tests/supervision/test_leftovers.py",
    ),
    Mutant(
        "a connection and its protocol let go of each other",
        "hyperllamad/listen.py",
        "self.protocol = _ENDED",
        "pass",
        "tests/test_listen.py",
    ),
    Mutant(
        "what removes shared memory is killed last",
        "hyperllamad/supervision/guard.py",
        "signal.SIGCONT if is_tracker(child) else signal.SIGKILL",
        "signal.SIGKILL",
        "tests/supervision/test_guard_ends.py",
    ),
    Mutant(
        "a driver that is busy is not gone",
        "hyperllamad/core/gpu_health.py",
        "now - self.silent_since < SILENCE",
        "now < self.silent_since",
        "tests/core/test_gpu_health.py",
    ),
    Mutant(
        "what the C library keeps is given back",
        "hyperllamad/supervision/leftovers.py",
        "_trim(0)",
        "pass",
        "tests/supervision/test_leftovers.py",
    ),
    Mutant(
        "a look at what lives leave disturbs no other thread",
        "hyperllamad/supervision/leftovers.py",
        "self._took <= self._ended * WORTH",
        "len(gc.get_objects()) <= self._ended * 20_000",
        "tests/supervision/test_leftovers.py",
    ),
    Mutant(
        "an older measurement replaces no newer one",
        "hyperllamad/core/ledger.py",
        "measured.began < self._began",
        "not self._began",
        "tests/core/test_admission.py",
    ),
    Mutant(
        "a home that goes while homes are read is not believed",
        "hyperllamad/engines/homes.py",
        "return self.root.stat().st_mtime_ns, self._change",
        "return self.root.stat().st_mtime_ns, None",
        "tests/engines/test_homes.py",
    ),
    Mutant(
        "the guard of a prepared process is counted with it",
        "hyperllamad/supervision/rows.py",
        "[guard, *procfs.descendants(guard, everybody)]",
        "procfs.descendants(guard, everybody)",
        "tests/supervision/test_spares.py",
    ),
    Mutant(
        "what starts in a home that is being removed keeps it",
        "hyperllamad/engines/homes.py",
        "            vacate()",
        "            pass",
        "tests/control/test_engine_commands.py",
    ),
)


def survives(mutant: Mutant) -> bool:
    """The test passes without the fix: it is asleep."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
        for part in ("hyperllamad", "hyperllamactl", "tests", "etc", "docs", "pyproject.toml"):
            source, target = ROOT / part, Path(scratch, part)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, target)
        file = Path(scratch, mutant.file)
        text = file.read_text(encoding="utf-8")
        assert Path(scratch, mutant.test).is_file(), (
            f"{mutant.test} is not there, so it would fail whatever is taken out"
        )
        assert text.count(mutant.old) == 1, f"{mutant.file} holds it {text.count(mutant.old)} times: {mutant.old}"
        file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not real", mutant.test]
        environ = os.environ | {"PYTHONPATH": scratch, "PYTHONDONTWRITEBYTECODE": "1"}
        return (
            subprocess.run(command, cwd=scratch, env=environ, capture_output=True, check=False, timeout=600).returncode
            == 0
        )


def run() -> Row:
    """Every one of them."""
    asleep = [mutant.what for mutant in MUTANTS if survives(mutant)]
    told = f"{len(MUTANTS) - len(asleep)} noticed" + (f"; not: {', '.join(asleep)}" if asleep else "")
    return Row("a fix taken out fails the suite", f"{len(MUTANTS)} fixes", not asleep, told)
