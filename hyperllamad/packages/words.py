"""What pip and uv say, as progress and as the sentence that explains a failure.  Pure."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Something moved.  `done` and `total` are bytes, 0 when they do not apply."""

    phase: str
    detail: str = ""
    done: int = 0
    total: int = 0


OnProgress = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """An OnProgress for callers who do not look."""


class PipReader:
    """Turns the lines of pip, or of uv, into progress."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._package = ""

    def read(self, line: str) -> None:
        if bar := re.fullmatch(r"Progress (\d+) of (\d+)", line):
            self._on_progress(Progress("downloading", self._package, int(bar[1]), int(bar[2])))
        elif collecting := re.match(r"\s*(?:Collecting|Downloading|Downloaded|Using cached|Processing) (\S+)", line):
            self._package = collecting[1].rsplit("/", 1)[-1]
            self._on_progress(Progress("downloading", self._package))
        elif installing := re.match(r"Installing collected packages: (.*)", line):
            count = installing[1].count(",") + 1
            self._on_progress(Progress("installing", f"{count} package{'s' if count > 1 else ''}"))
        elif resolved := re.match(r"Resolved (\d+ packages?)", line):  # uv, from here on
            self._on_progress(Progress("downloading", resolved[1]))
        elif prepared := re.match(r"Prepared (\d+ packages?)", line):
            self._on_progress(Progress("installing", prepared[1]))


# The first that matches is the cause: pip says much else on its way to it.
_CAUSES = (
    (
        r"THESE PACKAGES DO NOT MATCH THE HASHES|Hash mismatch for `([^`]+)`",
        "a package is not the one this release was tried with, or arrived damaged",
        "try again; if it stays so, something between here and the package index changes packages",
    ),
    (r"No space left on device", "the disk became full", "make room and try again"),
    (
        r"name resolution|Name or service not known|NewConnectionError|ConnectTimeout|ReadTimeout|dns error|"  # noqa: ISC004
        r"Connection refused|Network is unreachable|Max retries exceeded|error sending request",
        "the package index cannot be reached",
        "check the network, or set `index_url` in the engine's file to an index that can be reached",
    ),
    (
        r"HTTP error (\d+)|(\d{3}) (?:Client|Server) Error",
        "the package index refused with HTTP {0}",
        "check `index_url` in the engine's file",
    ),
    (
        r"No matching distribution found for (\S+)|no version of (\S+)|(\S+) was not found in the package registry",
        "the package index has no {0} for this Python ({python}) and machine",
        "see `index_url` and `extra_index_urls` in the engine's file, or ask for another version",
    ),
    (
        r"ResolutionImpossible|No solution found",
        "the packages it needs contradict each other",
        "ask for another version",
    ),
    (r"Permission denied|Read-only file system", "the directory cannot be written", "check who owns it"),
)


def explain(lines: Sequence[str]) -> tuple[str, str]:
    """(cause, hint) of a package tool's failure, from the end of its output."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    for pattern, cause, hint in _CAUSES:
        for line in lines:
            if found := re.search(pattern, line):
                what = next(filter(None, found.groups()), "")
                return cause.format(what, python=python), hint
    said = [line for line in lines if line.strip()]
    errors = [line for line in said if re.match(r"\s*(ERROR|error)\b", line)]
    return (errors or said or ["it said nothing"])[-1].strip(), ""
