"""What the daemon and its downloading child say to each other: one line of JSON each, tagged with its kind."""

from __future__ import annotations

import msgspec

ORIGIN = ".origin.json"  # in the directory of a pulled model: an Origin


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to fetch and where to."""

    name: str  # of the model, for sentences
    repository: str
    target: str  # the model's directory
    store: str  # where other models lie: a file that one of them has is not fetched again
    revision: str = "main"
    variant: str = ""
    kind: str = ""
    reserve: int = 0  # bytes that must stay free on the disk
    attempts: int = 6  # without a byte of progress, for each file
    pause: float = 1.0  # seconds before the second attempt; doubled each time


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a pulled model."""

    path: str
    size: int
    check: str  # "sha256:..." of its content, or "git:..." for small files


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pulled model comes from."""

    repository: str = ""
    commit: str = ""
    variant: str = ""
    files: tuple[Part, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of the files."""
        return tuple(part.path for part in self.files)


class Plan(msgspec.Struct, frozen=True, tag="plan", kw_only=True):
    """What will be fetched: (64 hex digits, bytes) of each file, its path, and how much of it is here already."""

    layers: tuple[tuple[str, int], ...]
    names: tuple[str, ...]
    completed: tuple[int, ...]


class Moved(msgspec.Struct, frozen=True, tag="moved", kw_only=True):
    """How many bytes of each file are here."""

    completed: tuple[int, ...]


class Verifying(msgspec.Struct, frozen=True, tag="verifying"):
    """Everything is here; the whole is looked at."""


class Placed(msgspec.Struct, frozen=True, tag="placed", kw_only=True):
    """The model is in its place."""

    new: bool  # False: it was there before, exactly so


class Failure(msgspec.Struct, frozen=True, tag="failure", kw_only=True):
    """Why there is no model: the name of the error's class, and its parts."""

    kind: str
    message: str
    hint: str
    trace: str = ""  # of a fault of ours


Event = Plan | Moved | Verifying | Placed | Failure
