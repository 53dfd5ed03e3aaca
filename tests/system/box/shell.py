"""Running commands on this machine, and saying what is done and for how long."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
CACHE = ROOT / ".cache" / "system"
_began = time.monotonic()


def say(text: str) -> None:
    print(f"== {time.monotonic() - _began:4.0f} s  {text}", flush=True)


class CommandError(Exception):
    """A command of the harness itself failed; what it wrote is in the message."""


def run(argv: Sequence[str | Path], *, log: Path | None = None, limit: float = 1800, **environ: str) -> str:
    """Standard output; raises CommandError with the end of everything that was written."""
    done = subprocess.run(
        [str(part) for part in argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=limit,
        env={**os.environ, **environ},
        check=False,
    )
    if log:
        log.write_text(done.stdout)
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-40:])
        raise CommandError(f"{' '.join(map(str, argv))[:300]} ended with {done.returncode}:\n{end}")
    return done.stdout
