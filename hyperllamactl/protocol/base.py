"""What every command and every answer is made of: roles, the two base structs, and the lines any command may send.

It must not know any command; those are defined by subject in the modules beside it, each with its replies.
"""

from __future__ import annotations

import enum
from typing import ClassVar

import msgspec


class Role(enum.Enum):
    """Who may run a command."""

    READER = "reader"  # whoever the socket's mode lets in
    ADMIN = "admin"  # root, the daemon's own user, members of the admin group


class Reply(msgspec.Struct, kw_only=True, tag=True):
    """A line of an answer; `type` names it."""


class FilePart(msgspec.Struct, kw_only=True):
    """One of several files that are fetched side by side; bytes."""

    name: str
    done: int
    total: int


class Progress(Reply, tag="progress"):
    """Something moved.  `done` and `total` are bytes or 0 when they do not apply; `elapsed` is seconds."""

    phase: str  # one or two words: weights, downloading
    detail: str = ""
    done: int = 0
    total: int = 0
    elapsed: float = 0.0
    files: list[FilePart] = []  # that the command has fetched so far; `done` and `total` are their sums while it does


class Caution(Reply, tag="caution"):
    """Something to know before it goes wrong; the command goes on."""

    message: str


class Failed(Reply, tag="failed"):
    """The command did not succeed: a code for programs, a sentence and a hint for people."""

    code: str  # see the exit codes
    message: str  # what happened, to what
    hint: str = ""  # what to try


class Done(Reply, tag="done"):
    """The command succeeded and there is nothing more to tell."""

    message: str = ""


class Command(msgspec.Struct, kw_only=True):
    """A request; the class says who may send it and what the last line of the answer is."""

    role: ClassVar[Role] = Role.READER
    reply: ClassVar[type[Reply]] = Done
    streams: ClassVar[bool] = False  # True: lines come as they happen
