"""The manual pages: hyperllamad(8), hyperllamactl(1), hyperllamad.toml(5).

Commands and options come from the parsers, exit codes from exits.py, configuration keys from the commented files of
etc/hyperllama; here is only what these do not say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hyperllamactl import __version__, exits
from tools import commandline, roff
from tools.commandline import Command, Option

ETC = Path(__file__).parents[1] / "etc" / "hyperllama"

_SERVICE = """
The package brings `hyperllamad.service` and `hyperllamad-admin.socket`, both disabled.  `systemctl enable --now
hyperllamad` starts it now and at every boot.  It reports ready when the API listens, before any model is loaded.

`systemctl restart` refuses nobody: systemd keeps the listening sockets, new clients wait, and open requests are
answered first, for at most `server.shutdown_grace`.  With `systemctl stop`, clients that came too late for that are
hung up on when the daemon ends.

`systemctl reload` takes the configuration as it is now: all of it, or nothing when it is wrong or a change needs a
restart; then it fails, and `hyperllamactl status` keeps the reason.  Models that the change concerns are unloaded after
their requests and loaded again before the command ends; all others go on untouched.

`hyperllamad.socket` is optional: with it, systemd listens on the API's port itself and the first request starts the
daemon.  Its addresses count then, not `server.host`.
"""
_SIGNALS = (
    ("SIGTERM, SIGINT", "Stop: open requests may finish within `server.shutdown_grace`; a second one skips that."),
    (
        "SIGHUP",
        "Reload, as `hyperllamactl reload` does.  When the terminal it was started from has closed, stop instead.",
    ),
    ("SIGHUP, ignored at start", "Reload in any case, as with nohup(1)."),
)
_DAEMON_FILES = (
    ("/etc/hyperllama", "The configuration, see hyperllamad.toml(5)."),
    ("/var/lib/hyperllama", "Installed engines and models."),
    ("/var/lib/hyperllama/compiled", "What engines compile; may be deleted while the daemon is stopped."),
    ("/run/hyperllama/admin.sock", "Where hyperllamactl(1) connects."),
)
_DAEMON_EXITS = (
    ("0", "stopped as asked, or the configuration is good"),
    ("1", "failed; the log says why"),
    ("2", "the command line or the configuration cannot be understood"),
    ("69", "the address is taken"),
)
_MODELS_D = """
A file of any name that ends in `.toml`, for one model.  Only `name` is needed; without `path` the file is about a model
of that name in the store.
"""
MODEL_KEYS = {
    "name": "The name requests ask for, such as `llama3.2:3b`.",
    "path": "A GGUF file or a Hugging Face directory: absolute, from ~, or below the store.",
    "engine": "The engine that runs it: `llama_cpp`, `vllm` or `max`; empty = what suits it.",
    "context": "Tokens of context; 0 = as `models.context` says.",
    "parallel": "Requests answered at once; 0 = as `models.parallel` says.",
    "quantize": "`fp8` = vLLM halves 16-bit weights as it loads them, on a GPU; empty = they stay as they are.",
    "args": "Arguments added to the end of the engine's command line.",
    "system": "A system message for requests that have none.",
    "parameters": "A table of Ollama's options, such as `temperature`, for requests that do not state them.",
    "memory_max": "What its processes may use together, such as `8GiB`; empty = as the engine's file says.",
    "tasks_max": "How many processes and threads they may have; 0 = as the engine's file says.",
    "cpu_weight": "Their share of the processors against others, 1 to 10000; 0 = as the engine's file says.",
}


def pages() -> dict[str, str]:
    """File name to text."""
    return {
        "hyperllamad.8": _daemon(commandline.hyperllamad()),
        "hyperllamactl.1": _control(commandline.hyperllamactl()),
        "hyperllamad.toml.5": _configuration(),
    }


# -- the programs ------------------------------------------------------------------------------------------------------


def _daemon(command: Command) -> str:
    return "".join(
        (
            roff.head(command.name, 8, "model server that speaks the Ollama API", __version__),
            roff.section("Synopsis", _synopsis(command)),
            roff.section("Description", roff.inline(command.description)),
            roff.section("Options", _options(command.options)),
            roff.section("As a service", *map(roff.inline, _SERVICE.split("\n\n"))),
            roff.section("Signals", _items(_SIGNALS)),
            roff.section("Exit status", _items(_DAEMON_EXITS)),
            roff.section("Files", _items(_DAEMON_FILES)),
            roff.section("See also", ".BR hyperllamactl (1),\n.BR hyperllamad.toml (5)"),
        )
    )


def _control(command: Command) -> str:
    codes = [(str(code.value), meaning) for code, meaning in exits.MEANINGS.items()]
    return "".join(
        (
            roff.head(command.name, 1, "look after hyperllamad", __version__),
            roff.section("Synopsis", _synopsis(command)),
            roff.section("Description", roff.inline(command.description)),
            roff.section("Options", _options(command.options)),
            ".SH COMMANDS\n",
            *map(_subcommand, command.leaves()),
            roff.section("Exit status", _items(codes)),
            roff.section("Environment", _items([("HYPERLLAMA_SOCKET", "Where hyperllamad listens.")])),
            roff.section("See also", ".BR hyperllamad (8),\n.BR hyperllamad.toml (5)"),
        )
    )


def _synopsis(command: Command) -> str:
    words = [f"\\fB{roff.escape(' '.join(command.path))}\\fR"]
    words += [f"[{_spelled(option)}]" for option in command.options if option.long != "--help"]
    words += [f"\\fI{roff.escape(name)}\\fR" for name in command.positionals]
    if command.commands:
        words.append("\\fICOMMAND\\fR ...")
    return "\n".join(words)


def _subcommand(command: Command) -> str:
    options = tuple(option for option in command.options if option.long != "--help")
    aliases = f"  Also: {', '.join(f'`{alias}`' for alias in command.aliases)}." if command.aliases else ""
    examples = [line.strip() for line in command.epilog.splitlines()[1:]]
    return roff.subsection(
        " ".join(command.path[1:]),
        _synopsis(command),
        roff.inline(command.description + aliases),
        _options(options) if options else "",
        roff.block(examples) if examples else "",
    )


def _options(options: tuple[Option, ...]) -> str:
    return "".join(roff.item(_spelled(option, apart=", "), option.help) for option in options)


def _spelled(option: Option, *, apart: str = " | ") -> str:
    value = f" \\fI{roff.escape(option.value)}\\fR" if option.value else ""
    return apart.join(f"\\fB{roff.escape(flag)}\\fR{value}" for flag in option.flags)


def _items(rows: tuple[tuple[str, str], ...] | list[tuple[str, str]]) -> str:
    return "".join(roff.item(f"\\fB{roff.escape(term)}\\fR", text) for term, text in rows)


# -- the configuration -------------------------------------------------------------------------------------------------


def _configuration() -> str:
    main = (ETC / "hyperllamad.toml").read_text(encoding="utf-8")
    introduction = " ".join(_commented(main.split("\n\n", 1)[0])).partition(": ")[2]
    introduction = introduction[:1].upper() + introduction[1:]
    engines = [roff.subsection(f"engines.d/{path.name}", _keys(path)) for path in sorted(ETC.glob("engines.d/*.toml"))]
    return "".join(
        (
            roff.head("hyperllamad.toml", 5, "configuration of hyperllamad", __version__),
            roff.section(
                "Synopsis", roff.block(["/etc/hyperllama/hyperllamad.toml", "~/.config/hyperllama/hyperllamad.toml"])
            ),
            roff.section("Description", roff.inline(introduction)),
            ".SH KEYS\n",
            *_tables(main),
            ".SH ENGINES\n",
            *engines,
            roff.section("Models", roff.inline(_MODELS_D), _items(list(MODEL_KEYS.items()))),
            roff.section("See also", ".BR hyperllamad (8),\n.BR hyperllamactl (1)"),
        )
    )


def _tables(text: str) -> Iterator[str]:
    for name, body in re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL):
        yield roff.subsection(f"[{name}]", "".join(_entries(body)))


def _keys(path: Path) -> str:
    return "".join(_entries(path.read_text(encoding="utf-8").split("\n\n", 2)[2]))


def _entries(body: str) -> Iterator[str]:
    """The keys of a table, commented out as they are, each below the comment that is about it."""
    words: list[str] = []
    for line in body.splitlines():
        if re.match(r"#?[a-z_]+ = ", line):
            yield roff.item(f"\\fB{roff.escape(line.lstrip('#'))}\\fR", " ".join(words))
            words = []
        else:
            words += _commented(line)


def _commented(text: str) -> list[str]:
    return [line.removeprefix("#").strip() for line in text.splitlines()]
