"""hyperllamad's command line: arguments and configuration in, exit code out.

Exit codes: 0 stopped as asked (or the configuration is good), 1 failed, 2 wrong usage or configuration, 69 the address
is taken, 70 a fault of ours, with its traceback in the log.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hyperllamad import __version__
from hyperllamad.config.load import load_config
from hyperllamad.config.tables import Config
from hyperllamad.core.errors import ConfigError, HyperLlamaError

EX_UNAVAILABLE, EX_SOFTWARE = 69, 70  # sysexits.h
# Seconds a thread that computes may keep the event loop waiting; Python's own 5 ms are as long as a token takes.
SWITCH = 0.0005


def parser() -> argparse.ArgumentParser:
    """The arguments; `hyperllamad --help` is made from this."""
    arguments = argparse.ArgumentParser(
        prog="hyperllamad",
        description="Serve local models through the Ollama API, each in a supervised engine.",
        epilog="The configuration is described in the comments of hyperllamad.toml.",
    )
    arguments.add_argument("--config", type=Path, metavar="DIR", help="directory that holds hyperllamad.toml")
    arguments.add_argument("--check-config", action="store_true", help="check the configuration and exit")
    arguments.add_argument(
        "--demo", metavar="ENGINE", help="install ENGINE and the demo model if missing, and serve it"
    )
    arguments.add_argument("--prepare", action="store_true", help="with --demo: install, then exit")
    arguments.add_argument("--version", action="version", version=f"hyperllamad {__version__}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the daemon until it is told to stop."""
    options = parser().parse_args(argv)
    try:
        config = _read(options.config)
    except ConfigError as failure:
        print(f"hyperllamad: {failure}", file=sys.stderr)
        return 2
    if options.check_config:
        print(f"hyperllamad: the configuration in {config.paths.config} is good", file=sys.stderr)
        return 0
    read = partial(_read, options.config)
    return _run(config, read, demo=options.demo or "", prepare_only=options.prepare)


def _read(stated: Path | None) -> Config:
    """The configuration; a directory that was named must be there, or a slip of the pen would mean the defaults."""
    named = stated or Path(os.environ.get("HYPERLLAMA_CONFIG") or "/")
    if not named.is_dir():
        hint = "--config or $HYPERLLAMA_CONFIG name the directory that holds hyperllamad.toml"
        raise ConfigError(f"{named} is no directory", hint=hint)
    return load_config(stated)


def _run(config: Config, read: Callable[[], Config], *, demo: str, prepare_only: bool) -> int:
    # Imported late: `--check-config` and `--help` should not pay for a web server.
    import anyio

    from hyperllamad import daemon, doors, telemetry

    telemetry.start_logging(debug=config.server.debug)
    gc.freeze()  # what is imported by now lives for ever: full collections need not look at it again
    sys.setswitchinterval(SWITCH)
    log = logging.getLogger("hyperllamad")
    try:
        run = partial(daemon.main, config, read, demo, prepare_only=prepare_only)
        anyio.run(run, backend_options={"use_uvloop": True})
    except HyperLlamaError as failure:
        log.error("%s", failure)
        if isinstance(failure, doors.AddressTakenError):
            return EX_UNAVAILABLE
        return 2 if isinstance(failure, ConfigError) else 1
    except Exception:
        # Whatever it was, the state it left is not to be trusted: the next life starts clean.
        log.critical("a fault of hyperllamad itself has ended it", exc_info=True)
        return EX_SOFTWARE
    return 0


if __name__ == "__main__":
    sys.exit(main())
