"""What engines have compiled: one directory for each engine home, in the state directory.

To fill one again takes an engine minutes, so it does not lie where caches are cleared.  Releases before 0.2 kept it in
the cache directory, from where it is fetched once.  Knows nothing of what engines put there.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple


def of(state: Path, home: str) -> Path:
    """Where the home of that id keeps what it compiles: without links, for engines find things again by their path."""
    return (state / "compiled").resolve() / home


def remove(state: Path, home: str) -> None:
    """Seconds of work: gigabytes may go."""
    shutil.rmtree(of(state, home), ignore_errors=True)


class Fetched(NamedTuple):
    """What became of the directories of an earlier release, by the ids of their homes."""

    moved: tuple[str, ...]
    left: tuple[str, ...]  # on another file system, or without our permission: of no use to anybody any more


def fetch(cache: Path, state: Path) -> Fetched:
    """Move what an earlier release compiled from the cache directory to where it is looked for now.

    Renames only, so it takes no time.  A home that has compiled anew in the meantime keeps what it has; the older one
    is left.  MAX, and vLLM on a GPU, also go by the path, as was seen: those compile once more all the same.
    """
    moved, left = [], []
    before = cache / "engines"
    for old in sorted(before.iterdir()) if before.is_dir() else ():
        new = of(state, old.name)
        try:
            new.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            old.rename(new)
            moved.append(old.name)
        except OSError:
            left.append(old.name)
    if moved and not left:
        before.rmdir()
    return Fetched(tuple(moved), tuple(left))
