"""Failures that only the admin door has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from hyperllamad.core.errors import HyperLlamaError


class UnknownCommandError(HyperLlamaError):
    """No command of that name; the hint gives the nearest ones."""

    code = "unknown_command"
    status = 404

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        words = ("did you mean", near) if near else ("there are", names)
        super().__init__(f"unknown command '{name}'", hint=f"{words[0]}: {', '.join(words[1])}")


class NotLoadedError(HyperLlamaError):
    """The model has no instance."""

    code = "not_loaded"
    status = 409

    def __init__(self, name: str) -> None:
        super().__init__(f"model '{name}' is not loaded", hint="`hyperllamactl ps` shows the models that are")


class NotInstalledError(HyperLlamaError):
    """There is no engine home like that."""

    code = "not_installed"
    status = 404
