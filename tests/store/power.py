"""A power cut at a chosen change to the disk: from then on nothing can be changed, and what was not synced is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class PowerCutError(BaseException):
    """The machine is off.  No `except Exception` may see it."""


class Power:
    """Counts the changes to a disk; cuts at change `at`, and never when that is 0."""

    CHANGES = ("rename", "replace", "link", "symlink", "unlink", "remove", "rmdir", "mkdir", "fsync", "fdopen")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.at, self.changes, self.off = 0, 0, False
        self._root = root
        self._synced: dict[int, int] = {}  # inode -> size when it was synced
        self._before = {path.stat().st_ino for path in root.rglob("*") if path.is_file()}
        for name in self.CHANGES:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))
        self._truncate = os.truncate

    def cut_at(self, number: int) -> None:
        self.at, self.changes, self.off = number, 0, False
        self._synced.clear()
        self._before = {path.stat().st_ino for path in self._root.rglob("*") if path.is_file()}

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            if self.off:
                raise PowerCutError
            self.changes += 1
            if self.changes == self.at:
                self.off = True
                raise PowerCutError
            result = real(*args, **kwargs)
            if name == "fsync":
                status = os.fstat(args[0])
                self._synced[status.st_ino] = status.st_size
            return result

        return change

    def lose(self) -> None:
        """What a new file got after it was synced, or without being synced, is gone."""
        for path in self._root.rglob("*"):
            if path.is_file() and not path.is_symlink() and (inode := path.stat().st_ino) not in self._before:
                self._truncate(path, self._synced.get(inode, 0))
