"""What an engine was tried with: locks/ID.txt, exact versions, each with the hashes of its files.

A line without a hash names a package of which every Python has a build of its own, from an index of its own (torch for
processors): its version is held, its file is not checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_ENTRY = re.compile(r"^(?P<pin>\S+==[^\s;\\]+)(?P<rest>(?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Lock:
    """One file, in parts; without any where there is no such file."""

    exact: tuple[str, ...] = ()  # entries as they stand, with hashes
    loose: tuple[str, ...] = ()  # `name==version`
    pins: tuple[str, ...] = ()  # `name==version` of all

    def exactly(self, directory: Path) -> Path:
        """A requirements file in `directory` of everything that has hashes."""
        return _written(directory / "lock.txt", self.exact)

    def held(self, directory: Path) -> Path | None:
        """A constraints file of all versions; None when nothing is locked."""
        return _written(directory / "constraints.txt", self.pins) if self.pins else None


def read(path: Path) -> Lock:
    """The lock in that file; an empty one when there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    entries = list(_ENTRY.finditer(text))
    return Lock(
        exact=tuple(one[0] for one in entries if "--hash=" in one["rest"]),
        loose=tuple(one["pin"] for one in entries if "--hash=" not in one["rest"]),
        pins=tuple(one["pin"] for one in entries),
    )


def _written(path: Path, lines: tuple[str, ...]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
