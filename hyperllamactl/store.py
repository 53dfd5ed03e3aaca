"""The subcommands that change which models there are: pull, create, rm, cp, gc."""

from __future__ import annotations

import argparse
import os
import sys

from hyperllamactl import render
from hyperllamactl.client import CallError
from hyperllamactl.commands import Session, nothing
from hyperllamactl.protocol.base import Failed, Reply
from hyperllamactl.protocol.store import Collected, CollectGarbage, Copy, Create, Pull, Remove


def pull(session: Session, args: argparse.Namespace) -> None:
    session.follow(Pull(model=args.model), nothing)


def remove(session: Session, args: argparse.Namespace) -> None:
    session.follow(Remove(model=args.model), nothing)


def copy(session: Session, args: argparse.Namespace) -> None:
    session.follow(Copy(source=args.source, destination=args.destination), nothing)


def create(session: Session, args: argparse.Namespace) -> None:
    session.follow(_create(args.model, args.file), nothing)


def collect_garbage(session: Session, args: argparse.Namespace) -> None:
    def each(line: Reply) -> None:
        if isinstance(line, Collected):
            session.print(render.garbage(line))

    session.follow(CollectGarbage(dry_run=args.dry_run), each)


def _create(model: str, path: str) -> Create:
    """The Modelfile as a command; raises CallError, so that a mistake in it ends as every failure does."""
    from hyperllamactl import modelfile  # noqa: PLC0415  only needed here, and every start counts

    try:
        if path == "-":
            text, directory = sys.stdin.read(), os.getcwd()  # noqa: PTH109  pathlib costs more than a start
        else:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123  as above
                text = file.read()
            directory = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120  as above
        return modelfile.parse(text, model, directory)
    except (OSError, UnicodeDecodeError) as failure:
        reason = getattr(failure, "strerror", None) or str(failure)
        raise CallError(_wrong(f"{path} cannot be read: {reason}", "name a Modelfile with -f")) from failure
    except modelfile.ModelfileError as failure:
        raise CallError(_wrong(f"{path}: {failure}", "")) from failure


def _wrong(message: str, hint: str) -> Failed:
    return Failed(code="bad_request", message=message, hint=hint)
