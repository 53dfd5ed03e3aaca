"""The command lines as data, read from the argparse parsers themselves.

argparse has no public way to walk a parser; the private names it is walked by are all here.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from hyperllamactl import cli
from hyperllamad import __main__ as daemon


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its spellings, what its value is called ("" = a switch) and what it does."""

    flags: tuple[str, ...]
    value: str
    help: str

    @property
    def long(self) -> str:
        return self.flags[-1]


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, or one of its subcommands.  `positionals` are the names of what it takes, in order."""

    path: tuple[str, ...]
    aliases: tuple[str, ...]
    description: str
    epilog: str
    options: tuple[Option, ...]
    positionals: tuple[str, ...]
    commands: tuple[Command, ...] = field(default=())

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def summary(self) -> str:
        return self.description.partition("\n")[0]

    def leaves(self) -> list[Command]:
        """Every subcommand that does something, however deep, in the order of the parser."""
        return [leaf for command in self.commands for leaf in command.leaves()] if self.commands else [self]


def hyperllamactl() -> Command:
    return _read(cli.build_parser()[0], ("hyperllamactl",))


def hyperllamad() -> Command:
    return _read(daemon.parser(), ("hyperllamad",))


def _read(parser: argparse.ArgumentParser, path: tuple[str, ...], aliases: tuple[str, ...] = ()) -> Command:
    options, positionals, commands = [], [], []
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            commands = _subcommands(action, path)
        elif action.option_strings:
            value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
            options.append(Option(tuple(action.option_strings), value, _help(action)))
        else:
            positionals.append(str(action.metavar or action.dest))
    description = parser.description or ""
    return Command(path, aliases, description, parser.epilog or "", tuple(options), tuple(positionals), tuple(commands))


def _subcommands(action: argparse._SubParsersAction[argparse.ArgumentParser], path: tuple[str, ...]) -> list[Command]:
    """One for each parser; further names of the same parser are its aliases."""
    names: dict[argparse.ArgumentParser, list[str]] = {}
    for name, parser in action.choices.items():
        names.setdefault(parser, []).append(name)
    return [_read(parser, (*path, first), tuple(others)) for parser, (first, *others) in names.items()]


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%(prog)s", "the program").replace("show program's", "print the program's")
