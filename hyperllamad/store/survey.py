"""Which names lead where: models.d over the store over other directories.  Looks at names of files only.

A survey is believed until one of its directories changes; `Stamp` is how that is seen, for files too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperllamad.config.tables import ModelTable
from hyperllamad.core.errors import InvalidNameError
from hyperllamad.core.names import ModelName
from hyperllamad.store import layout
from hyperllamad.store.layout import Problem

Stamp = tuple[tuple[int, int, int] | None, ...]

# Two changes within one tick of the kernel's clock leave the same time behind, so a file that has just been changed is
# not believed unchanged later.  The tick is at most 10 ms.
_TICK = 20_000_000  # nanoseconds


@dataclass(frozen=True, slots=True)
class Place:
    """A name, where it leads (None: nowhere) and what models.d adds."""

    name: ModelName
    path: Path | None
    table: ModelTable | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that lies in the store and the other directories, and what models.d says."""

    places: dict[str, Place]  # by ModelName.key
    problems: tuple[Problem, ...]  # what has no usable name of its own
    branches: tuple[str, ...]  # directories where new names would appear
    leaves: tuple[str, ...]  # directories that are models
    branch_stamp: Stamp | None
    leaf_stamp: Stamp | None


def survey(store: Path, directories: Sequence[Path], entries: Sequence[ModelTable]) -> Survey:
    """Look at everything anew."""
    began = time.time_ns()
    trees = [layout.walk(store, layout.NAME_DEPTH), *(layout.walk(directory, 1) for directory in directories)]
    problems = [problem for tree in trees for problem in tree.problems]
    places: dict[str, Place] = {}
    for tree in trees:
        for key, (name, path) in tree.models.items():
            first = places.setdefault(key, Place(name, path))
            if first.path != path:
                problems.append(Problem(name.short, str(path), f"{first.path} has the same name and is used instead"))
    problems += _add_entries(places, store, entries)
    branches = tuple(str(path) for tree in trees for path in tree.branches)
    leaves = tuple(str(path) for tree in trees for path in tree.leaves)
    return Survey(
        places=places,
        problems=tuple(problems),
        branches=branches,
        leaves=leaves,
        branch_stamp=settled(stamp(branches), began),
        leaf_stamp=settled(stamp(leaves), began),
    )


def _add_entries(places: dict[str, Place], store: Path, entries: Sequence[ModelTable]) -> list[Problem]:
    """Put models.d over what lies on the disk; the first file wins where two use a name."""
    found, stated, problems = dict(places), set[str](), []
    for table in entries:
        try:
            name = ModelName.parse(table.name)
        except InvalidNameError as failure:
            problems.append(Problem(table.name, table.path, f"models.d: {failure}"))
            continue
        if name.key in stated:
            problems.append(Problem(name.short, table.path, "models.d names this model twice: the first file counts"))
            continue
        stated.add(name.key)
        if table.path:
            path: Path | None = store / Path(table.path).expanduser()
        else:
            path = found[name.key].path if name.key in found else None
        places[name.key] = Place(name, path, table)
    return problems


def stamp(paths: Iterable[str | Path]) -> Stamp:
    """What changes when one of the files or directories does.  Texts are quicker, where every request asks."""
    return tuple(map(_stamp_of, paths))


def _stamp_of(path: str | Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116  # Path.stat takes half as long again, and this is called per request
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def settled(taken: Stamp, began: int) -> Stamp | None:
    """The stamp, or None (which equals no stamp) when something changed since just before `began` (time.time_ns()).

    Times in the future are not held against a file: its clock was wrong, and it would be read again at every call.
    """
    begin, end = began - _TICK, time.time_ns() + _TICK
    return None if any(entry and begin < entry[0] < end for entry in taken) else taken
