"""The command line: the tree of subcommands and options, and the turning of every end into an exit code.

Start time is a feature (scripts call `ps` in loops), so nothing is imported here or below that a bare `ps` does not
need; tests/ctl/test_start.py holds the list.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from hyperllamactl import __version__, commands, decisions, machine, store
from hyperllamactl.client import CallError, Client, sockets
from hyperllamactl.exits import Exit, of_code
from hyperllamactl.protocol.base import Command
from hyperllamactl.protocol.daemon import Reload, Status
from hyperllamactl.protocol.decisions import Events, PlanLoad, Why
from hyperllamactl.protocol.engines import EngineInstall, EngineList, EngineRemove
from hyperllamactl.protocol.instances import Load, Logs, Ps, Unload, Warm, Watch
from hyperllamactl.protocol.keys import KeyList, KeyNew, KeyRemove
from hyperllamactl.protocol.machine import Info, Recommend
from hyperllamactl.protocol.store import CollectGarbage, Copy, Create, List, Pull, Remove, Show
from hyperllamactl.talk import Talk, columns, painter

PROGRAM = "hyperllamactl"
Run = Callable[[commands.Session, argparse.Namespace], None]
Leaves = dict[type[Command], argparse.ArgumentParser]


class _Help(argparse.RawDescriptionHelpFormatter):
    """Knows the terminal's width by itself: argparse, which asks on every start, would import shutil for it."""

    def __init__(self, prog: str, **more: Any) -> None:
        super().__init__(prog, width=columns(sys.stdout) - 2, **more)


class _Tree:
    """Adds subcommands whose help is the command's own docstring, so that it is written once."""

    def __init__(self, parser: argparse.ArgumentParser, leaves: Leaves) -> None:
        self.leaves = leaves
        self._parsers = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        self,
        name: str,
        command: type[Command],
        run: Run,
        *,
        examples: Sequence[str],
        alias: Sequence[str] = (),
        quiet: str = "",
    ) -> argparse.ArgumentParser:
        parser = self._group(name, command.__doc__ or "", examples, alias)
        self.leaves[command] = parser
        parser.set_defaults(run=run, command=command, quiet=False)
        form = "one JSON object per line" if command.streams else "one JSON document"
        parser.add_argument("--json", action="store_true", help=f"print {form} instead of text")
        if quiet:
            parser.add_argument("-q", "--quiet", action="store_true", help=quiet)
        return parser

    def group(self, name: str, text: str, examples: Sequence[str]) -> _Tree:
        return _Tree(self._group(name, text, examples, ()), self.leaves)

    def _group(self, name: str, text: str, examples: Sequence[str], alias: Sequence[str]) -> argparse.ArgumentParser:
        return self._parsers.add_parser(
            name,
            aliases=list(alias),
            help=text.partition("\n")[0],
            description=text,
            epilog="examples:\n" + "\n".join(f"  {PROGRAM} {example}" for example in examples),
            formatter_class=_Help,
        )


def build_parser() -> tuple[argparse.ArgumentParser, Leaves]:
    """The whole tree, and the parser of each command; a leaf sets `run` (what to do) and `command` (what it sends)."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Look after hyperllamad: the models it has loaded, its engines, its log.",
        epilog="Exit codes and every command's reply: docs/control.md.",
        formatter_class=_Help,
    )
    parser.add_argument("--socket", default="", metavar="PATH", help="where hyperllamad listens ($HYPERLLAMA_SOCKET)")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    tree = _Tree(parser, {})
    _add_running(tree)
    _add_store(tree)
    _add_daemon(tree)
    _add_decisions(tree)
    _add_engines(tree)
    _add_keys(tree)
    return parser, tree.leaves


NAMES, SILENT = "print names only", "show no progress"  # what --quiet means


def _add_running(tree: _Tree) -> None:
    tree.add("ps", Ps, commands.ps, quiet=NAMES, examples=["ps", "ps --json", "ps -q"])
    load = tree.add(
        "load",
        Load,
        commands.load,
        quiet=SILENT,
        examples=["load smollm2:135m", "load llama3.2:3b --keep-alive 1h", "load llama3.2:3b --keep-alive -1"],
    )
    load.add_argument("model", metavar="MODEL")
    load.add_argument(
        "--keep-alive",
        type=_keep_alive,
        metavar="TIME",
        help="how long it stays without requests: 10m, 90, -1 = for ever",
    )
    warm = tree.add("warm", Warm, commands.warm, quiet=SILENT, examples=["warm llama3.2:3b"])
    warm.add_argument("model", metavar="MODEL")
    unload = tree.add(
        "unload",
        Unload,
        commands.unload,
        quiet=SILENT,
        examples=["unload smollm2:135m", "unload smollm2:135m --now"],
    )
    unload.add_argument("model", metavar="MODEL")
    unload.add_argument("--now", action="store_true", help="cut off requests that are being answered")


def _add_store(tree: _Tree) -> None:
    tree.add("list", List, commands.models, alias=["ls"], quiet=NAMES, examples=["list", "ls -q", "list --json"])
    show = tree.add("show", Show, commands.show, examples=["show smollm2:135m", "show smollm2:135m --json"])
    show.add_argument("model", metavar="MODEL")
    pull = tree.add(
        "pull",
        Pull,
        store.pull,
        quiet=SILENT,
        examples=["pull qwen3:8b", "pull hf.co/Qwen/Qwen3-8B-GGUF:Q4_K_M"],
    )
    pull.add_argument("model", metavar="MODEL")
    remove = tree.add("rm", Remove, store.remove, quiet=SILENT, examples=["rm qwen3:8b"])
    remove.add_argument("model", metavar="MODEL")
    copy = tree.add("cp", Copy, store.copy, quiet=SILENT, examples=["cp qwen3:8b mine"])
    copy.add_argument("source", metavar="SOURCE")
    copy.add_argument("destination", metavar="NAME")
    create = tree.add(
        "create",
        Create,
        store.create,
        quiet=SILENT,
        examples=["create mario -f Modelfile", "create mine -f -"],
    )
    create.add_argument("model", metavar="NAME")
    create.add_argument("-f", "--file", default="Modelfile", metavar="PATH", help="the Modelfile; - = standard input")
    garbage = tree.add("gc", CollectGarbage, store.collect_garbage, examples=["gc --dry-run", "gc"])
    garbage.add_argument("--dry-run", action="store_true", help="only list what would be removed")


def _add_daemon(tree: _Tree) -> None:
    tree.add("info", Info, machine.info, examples=["info", "info --json"])
    recommend = tree.add(
        "recommend",
        Recommend,
        machine.recommend,
        quiet=NAMES,
        examples=["recommend", "recommend qwen3:8b", "recommend --all"],
    )
    recommend.add_argument("model", metavar="MODEL", nargs="?", help="in which of its kinds to take this one")
    recommend.add_argument("--all", action="store_true", help="also what does not fit")
    tree.add("status", Status, commands.status, examples=["status", "status --json"])
    tree.add("reload", Reload, commands.reload, quiet=SILENT, examples=["reload", "reload -q"])
    logs = tree.add("logs", Logs, commands.logs, examples=["logs smollm2:135m", "logs -n 20 -f smollm2:135m"])
    logs.add_argument("model", metavar="MODEL")
    logs.add_argument("-n", "--lines", type=_count, default=100, metavar="N", help="how many lines (default: 100)")
    logs.add_argument("-f", "--follow", action="store_true", help="keep printing until Ctrl-C")
    tree.add("watch", Watch, commands.watch, examples=["watch", "watch --json"])


def _add_decisions(tree: _Tree) -> None:
    why = tree.add("why", Why, decisions.why, examples=["why smollm2:135m", "why smollm2:135m --json"])
    why.add_argument("model", metavar="MODEL")
    plan = tree.group("plan", "Say what a command would do, and change nothing.", ["plan load llama3.2:3b"])
    load = plan.add("load", PlanLoad, decisions.plan_load, examples=["plan load llama3.2:3b"])
    load.add_argument("model", metavar="MODEL")
    events = tree.add("events", Events, decisions.events, examples=["events", "events -n 5 -f", "events --json"])
    events.add_argument("-n", "--lines", type=_count, default=50, metavar="N", help="how many decisions (default: 50)")
    events.add_argument("-f", "--follow", action="store_true", help="keep printing until Ctrl-C")


def _add_engines(tree: _Tree) -> None:
    examples = ["engine list", "engine install llama_cpp", "engine remove vllm --version 0.32.0"]
    engine = tree.group("engine", "List, install and remove engines.", examples)
    engine.add(
        "list",
        EngineList,
        commands.engine_list,
        alias=["ls"],
        quiet="print the ids of installed engines only",
        examples=["engine list", "engine list --json"],
    )
    install = engine.add(
        "install",
        EngineInstall,
        commands.engine_install,
        quiet=SILENT,
        examples=["engine install llama_cpp", "engine install vllm --variant cuda"],
    )
    remove = engine.add(
        "remove",
        EngineRemove,
        commands.engine_remove,
        quiet=SILENT,
        examples=["engine remove max", "engine remove vllm --version 0.32.0 --variant cpu"],
    )
    for parser in (install, remove):
        parser.add_argument("name", metavar="NAME")
        parser.add_argument("--version", dest="engine_version", default="", metavar="V", help="which version")
        parser.add_argument("--variant", default="", metavar="V", help="which variant: cpu or cuda")
    remove.add_argument("--force", action="store_true", help="also when new instances would run in it")


def _add_keys(tree: _Tree) -> None:
    examples = ["key new alice", "key list", "key remove alice"]
    key = tree.group("key", "Make, list and remove API keys.", examples)
    new = key.add(
        "new",
        KeyNew,
        commands.key_new,
        quiet="print the key only",
        examples=["key new alice", "key new batch --concurrent 2 --tokens-per-minute 20000"],
    )
    new.add_argument("name", metavar="NAME")
    new.add_argument("--concurrent", type=_limit, metavar="N", help="requests at once; 0 = no limit")
    new.add_argument("--tokens-per-minute", type=_limit, metavar="N", help="read and written; 0 = no limit")
    names = "print names only"
    key.add("list", KeyList, commands.key_list, alias=["ls"], quiet=names, examples=["key list", "key ls -q"])
    remove = key.add(
        "remove",
        KeyRemove,
        commands.key_remove,
        alias=["rm"],
        quiet="print nothing",
        examples=["key remove alice"],
    )
    remove.add_argument("name", metavar="NAME")


def _keep_alive(text: str) -> str | float:
    """A number is seconds, as on the wire; the daemon judges the rest, and what JSON has no number for: nan, inf."""
    try:
        seconds = float(text)
    except ValueError:
        return text
    return seconds if math.isfinite(seconds) else text


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines")
    return int(text)


def _limit(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a limit: a whole number, 0 for none")
    return int(text)


def main(argv: Sequence[str] | None = None, *, now: Callable[[], float] = time.time) -> int:
    """Run one command line; returns the exit code (argparse itself exits with 2)."""
    args = build_parser()[0].parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an engine's log may hold what the locale cannot print
    talk = Talk(sys.stderr, quiet=args.quiet)
    client = Client(sockets(args.socket, os.environ), warn=talk.warn)
    paint = painter(sys.stdout, os.environ)
    session = commands.Session(client, sys.stdout, talk, json=args.json, paint=paint, now=now)
    try:
        return _run(session, args)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # `hyperllamactl logs m | head`: nobody is left to be told; the interpreter's own last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE_CLOSED
    finally:
        talk.clear()


def _run(session: commands.Session, args: argparse.Namespace) -> Exit:
    try:
        args.run(session, args)
    except CallError as failure:
        session.failed(failure.failed, streams=args.command.streams)
        return of_code(failure.failed.code)
    return Exit.DONE
