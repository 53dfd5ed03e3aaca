"""Exit codes of hyperllamactl: the one table from an error's code on the wire to what a script sees.

They follow `systemctl` and LSB where those have a number (3 not running, 4 no such unit) and sysexits.h for 69.
"""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """What hyperllamactl ends with; MEANINGS says it in words."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_LOADED = 3
    NO_SUCH = 4
    NO_FIT = 5
    BUSY = 6
    NOT_PERMITTED = 7
    UNREACHABLE = 69
    INTERRUPTED = 130
    PIPE_CLOSED = 141


MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done",
    Exit.FAILED: "failed; the sentence on standard error says why",
    Exit.USAGE: "the command line or a value in it cannot be understood",
    Exit.NOT_LOADED: "the model is not loaded, or the engine is not installed",
    Exit.NO_SUCH: "no model or API key of that name, here or where it was to come from",
    Exit.NO_FIT: "no installed engine can run the model here, or it does not fit",
    Exit.BUSY: "busy, in use, shutting down, or not done in time",
    Exit.NOT_PERMITTED: "no permission",
    Exit.UNREACHABLE: "hyperllamad is not running or cannot be reached",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
    Exit.PIPE_CLOSED: "whoever read the output has gone",
}

# Codes of Failed: those of hyperllamad.core.errors and hyperllamad.control.errors, and the client's own three.
OF_CODE: dict[str, Exit] = {
    "bad_request": Exit.USAGE,
    "invalid_name": Exit.USAGE,
    "unknown_command": Exit.USAGE,
    "unsupported": Exit.NO_FIT,
    "model_not_found": Exit.NO_SUCH,
    "no_such_key": Exit.NO_SUCH,
    "unauthorized": Exit.NOT_PERMITTED,
    "too_many_requests": Exit.BUSY,
    "no_engine": Exit.NO_FIT,
    "no_gpu": Exit.NO_FIT,
    "no_room": Exit.NO_FIT,
    "not_loaded": Exit.NOT_LOADED,
    "not_installed": Exit.NOT_LOADED,
    "in_use": Exit.BUSY,
    "load_failed": Exit.FAILED,
    "load_timeout": Exit.BUSY,
    "engine_died": Exit.FAILED,
    "cut_short": Exit.FAILED,
    "engine_refused": Exit.FAILED,
    "busy": Exit.BUSY,
    "closing": Exit.BUSY,
    "not_permitted": Exit.NOT_PERMITTED,
    "install_failed": Exit.FAILED,
    "pull_failed": Exit.FAILED,
    "repository_not_found": Exit.NO_SUCH,
    "unknown_short_name": Exit.NO_SUCH,
    "store": Exit.FAILED,
    "disk_full": Exit.FAILED,
    "config": Exit.FAILED,
    "internal": Exit.FAILED,
    "unreachable": Exit.UNREACHABLE,
    "timeout": Exit.BUSY,
    "broken": Exit.FAILED,
}


def of_code(code: str) -> Exit:
    """The exit for an error's code; a code of a newer daemon is a plain failure."""
    return OF_CODE.get(code, Exit.FAILED)
