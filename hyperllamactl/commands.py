"""One function per subcommand: what it asks of the daemon and what it prints.

Each takes a Session and the parsed arguments, prints data on standard output and raises CallError when it fails.  The
parser (cli.py) owns the options; the words and columns are render.py's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from time import localtime, monotonic, strftime
from typing import TextIO

import msgspec

from hyperllamactl import render
from hyperllamactl.client import Client
from hyperllamactl.protocol.base import Caution, Command, Done, Failed, Progress, Reply
from hyperllamactl.protocol.daemon import Reload, Status, StatusReport
from hyperllamactl.protocol.engines import EngineInstall, EngineList, EngineRemove, Engines
from hyperllamactl.protocol.instances import Change, Instances, Load, LogLine, Logs, Ps, Unload, Warm, Watch
from hyperllamactl.protocol.keys import KeyList, KeyMade, KeyNew, KeyRemove, Keys
from hyperllamactl.protocol.store import List, ModelDetails, Models, Show
from hyperllamactl.talk import Talk


class Session:
    """What a subcommand works with: the client, the two streams, the form of the output and the time."""

    def __init__(
        self, client: Client, out: TextIO, talk: Talk, *, json: bool, paint: render.Paint, now: Callable[[], float]
    ) -> None:
        self.client = client
        self.talk = talk
        self.json = json
        self.paint = paint
        self.now = now()
        self._out = out

    def print(self, text: str) -> None:
        """One piece of data, at once: a reader of a stream waits for it."""
        if text:
            self._out.write(f"{render.harmless(text)}\n")
            self._out.flush()

    def reply(self, reply: Reply, text: str) -> None:
        """The answer of a command that answers at once, as a JSON document or as text."""
        self.print(msgspec.json.format(msgspec.json.encode(reply)).decode() if self.json else text)

    def failed(self, failed: Failed, *, streams: bool) -> None:
        """A failure: the sentence for people and, where JSON was asked for, the object in the form asked for."""
        self.talk.fail(failed)
        if self.json:
            line = msgspec.json.encode(failed)
            self.print((line if streams else msgspec.json.format(line)).decode())

    def follow(self, command: Command, each: Callable[[Reply], None]) -> None:
        """Every line of a stream: as NDJSON, or progress and last words to standard error and the rest to `each`."""
        for line in self.client.stream(command):
            if self.json:
                self.print(msgspec.json.encode(line).decode())
            elif isinstance(line, Progress):
                self.talk.progress(line)
            elif isinstance(line, Done):
                self.talk.say(line.message)
            elif isinstance(line, Caution):
                self.talk.warn(line.message)
            else:
                each(line)


def _names(names: Iterable[str]) -> str:
    return "\n".join(names)


def nothing(_: Reply) -> None:
    """For commands that have no lines of their own."""


def ps(session: Session, args: argparse.Namespace) -> None:
    reply = session.client.call(Ps(), Instances)
    rows = reply.instances
    quiet = _names(row.name for row in rows)
    session.reply(reply, quiet if args.quiet else render.instances(rows, session.now, session.paint))


def models(session: Session, args: argparse.Namespace) -> None:
    reply = session.client.call(List(), Models)
    quiet = _names(row.name for row in reply.models)
    session.reply(reply, quiet if args.quiet else render.models(reply.models, session.now))
    for model in reply.broken:
        session.talk.warn(f"{model.name} ({model.path}) cannot be used: {model.problem}")


def show(session: Session, args: argparse.Namespace) -> None:
    reply = session.client.call(Show(model=args.model), ModelDetails)
    session.reply(reply, render.details(reply))


def status(session: Session, args: argparse.Namespace) -> None:  # noqa: ARG001  the shape all subcommands share
    reply = session.client.call(Status(), StatusReport)
    session.reply(reply, render.status(reply, session.now, session.paint))


def reload(session: Session, args: argparse.Namespace) -> None:  # noqa: ARG001  the shape all subcommands share
    session.follow(Reload(), nothing)


def load(session: Session, args: argparse.Namespace) -> None:
    started = monotonic()

    def ready(line: Reply) -> None:
        if isinstance(line, Instances):
            for row in line.instances:
                took = render.clock(monotonic() - started)
                session.talk.say(f"{row.name} is ready on {row.engine} after {took}")

    session.follow(Load(model=args.model, keep_alive=args.keep_alive), ready)


def warm(session: Session, args: argparse.Namespace) -> None:
    session.follow(Warm(model=args.model), nothing)


def unload(session: Session, args: argparse.Namespace) -> None:
    session.follow(Unload(model=args.model, now=args.now), nothing)


def logs(session: Session, args: argparse.Namespace) -> None:
    def each(line: Reply) -> None:
        if isinstance(line, LogLine):
            session.print(line.text)

    session.follow(Logs(model=args.model, lines=args.lines, follow=args.follow), each)


def watch(session: Session, args: argparse.Namespace) -> None:  # noqa: ARG001  the shape all subcommands share
    def each(line: Reply) -> None:
        if isinstance(line, Change):
            session.print(render.change(line, strftime("%H:%M:%S", localtime(line.at))))

    session.follow(Watch(), each)


def engine_list(session: Session, args: argparse.Namespace) -> None:
    reply = session.client.call(EngineList(), Engines)
    quiet = _names(row.id for row in reply.engines if row.installed)
    session.reply(reply, quiet if args.quiet else render.engines(reply.engines, session.now))


def engine_install(session: Session, args: argparse.Namespace) -> None:
    command = EngineInstall(name=args.name, version=args.engine_version, variant=args.variant)
    session.follow(command, nothing)


def engine_remove(session: Session, args: argparse.Namespace) -> None:
    command = EngineRemove(name=args.name, version=args.engine_version, variant=args.variant, force=args.force)
    session.follow(command, nothing)


def key_new(session: Session, args: argparse.Namespace) -> None:
    def made(line: Reply) -> None:
        if isinstance(line, KeyMade):
            session.print(line.key)
            session.talk.say(f"this is the key for {line.name}; it is not kept, and cannot be shown again")
            if not line.required:
                session.talk.warn("nobody is asked for a key before `keys.required` is set in hyperllamad.toml")

    command = KeyNew(name=args.name, concurrent=args.concurrent, tokens_per_minute=args.tokens_per_minute)
    session.follow(command, made)


def key_list(session: Session, args: argparse.Namespace) -> None:
    reply = session.client.call(KeyList(), Keys)
    quiet = _names(row.name for row in reply.keys)
    session.reply(reply, quiet if args.quiet else render.keys(reply, session.now))


def key_remove(session: Session, args: argparse.Namespace) -> None:
    session.follow(KeyRemove(name=args.name), nothing)
