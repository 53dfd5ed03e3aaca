"""What a long job of the store reports while it goes on: one step for each line that Ollama's API would write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One line.  Without a digest `total` and `completed` say nothing."""

    status: str
    digest: str = ""  # "sha256:" and 64 hex digits, of the file that moves
    total: int = 0  # bytes
    completed: int = 0  # bytes
    name: str = ""  # of the file that moves


OnStep = Callable[[Step], None]

WRITING = Step("writing manifest")
SUCCESS = Step("success")


def ignore(_: Step) -> None:
    """An OnStep for callers who do not look."""
