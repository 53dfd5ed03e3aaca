"""The client of the admin wire: finds the socket, sends a command, yields the lines of its answer.

Owns the turning of every failure into one exception with advice.  It must not print, and it knows no command in
particular.  Blocking: it is for programs, not for an event loop.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from hyperllamactl import __version__
from hyperllamactl.protocol.base import Command, Failed, Reply
from hyperllamactl.protocol.table import COMMANDS, Line

R = TypeVar("R", bound=Reply)

SYSTEM_SOCKET = "/run/hyperllama/admin.sock"
PATIENCE = (
    30.0  # seconds for a command that answers at once; commands that stream tell of themselves and may take hours
)
NAMES = {kind: name for name, kind in COMMANDS.items()}

_LINE: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Line)


class CallError(Exception):
    """The command did not succeed; `failed` holds the code, the sentence and the hint, whoever wrote them."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


def _error(code: str, message: str, hint: str = "") -> CallError:
    return CallError(Failed(code=code, message=message, hint=hint))


def sockets(stated: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where to look for the daemon, in order: what was stated, else the user's own directory, else the system's.

    The user's own directory is where hyperllamad/config/paths.py puts its socket without root.
    """
    if chosen := stated or environ.get("HYPERLLAMA_SOCKET", ""):
        return (chosen,)
    if runtime := environ.get("XDG_RUNTIME_DIR", ""):
        own = f"{runtime}/hyperllama"
    else:
        state = environ.get("XDG_STATE_HOME") or f"{environ.get('HOME', '/').rstrip('/')}/.local/state"
        own = f"{state}/hyperllama/run"
    return (f"{own}/admin.sock", SYSTEM_SOCKET)


class Client:
    """Calls commands; one connection per call.  `warn` is told of a daemon of another version, once."""

    def __init__(self, paths: Sequence[str], *, warn: Callable[[str], None]) -> None:
        self._paths = paths
        self._warn = warn
        self._warned = False

    def call(self, command: Command, kind: type[R]) -> R:
        """The one reply of a command that answers at once; raises CallError."""
        for line in self.stream(command):
            if isinstance(line, kind):
                return line
        raise self._broken(f"the answer to {NAMES[type(command)]} is not of the kind that was expected")

    def stream(self, command: Command) -> Iterator[Reply]:
        """Every line as it comes, the last one being the command's reply; raises CallError instead of a Failed line."""
        name, body = NAMES[type(command)], _encoded(command)
        connection = _Connection(self._paths, timeout=None if command.streams else PATIENCE)
        with contextlib.closing(connection):
            try:
                connection.request("POST", f"/v1/{name}", body)
                response = connection.getresponse()
                self._compare_versions(response)
                last: Reply | None = None
                for text in response:
                    last = self._decode(text)
                    yield last
            except TimeoutError as failure:
                raise _error(
                    "timeout", f"hyperllamad did not answer {name} within {PATIENCE:.0f} s", "see its log"
                ) from failure
            except (OSError, http.client.HTTPException) as failure:
                raise self._broken(
                    f"the answer to {name} broke off: {str(failure) or type(failure).__name__}"
                ) from failure
            if not isinstance(last, command.reply):
                raise self._broken(f"the answer to {name} ended too early")

    def _decode(self, text: bytes) -> Reply:
        try:
            line = _LINE.decode(text)
        except msgspec.MsgspecError as failure:
            # Half a line is what a daemon that died in the middle of it leaves.
            raise self._broken(f"the answer cannot be read: {failure}") from failure
        if isinstance(line, Failed):
            raise CallError(line)
        return line

    def _broken(self, message: str) -> CallError:
        hint = "hyperllamad may have ended: `hyperllamactl status` tells, and its log says why"
        return _error("broken", message, hint)

    def _compare_versions(self, response: http.client.HTTPResponse) -> None:
        for server in response.headers.get_all("Server", []):
            name, _, version = server.partition("/")
            if name == "hyperllamad" and version != __version__ and not self._warned:
                self._warned = True
                self._warn(
                    f"hyperllamad is {version}, hyperllamactl {__version__}; restart hyperllamad after an upgrade"
                )


def _encoded(command: Command) -> bytes:
    """The body of the request; a command line may hold bytes that are no text, and then nor is the command."""
    try:
        return msgspec.json.encode(command)
    except UnicodeEncodeError as failure:
        shown = failure.object[:80].encode(errors="backslashreplace").decode()
        raise _error("bad_request", f"{shown} is not valid UTF-8", "write it in UTF-8") from failure


class _Connection(http.client.HTTPConnection):
    """HTTP to the first Unix socket somebody listens on.  The host name is what the daemon expects."""

    def __init__(self, paths: Sequence[str], *, timeout: float | None) -> None:
        super().__init__("hyperllamad", timeout=timeout)
        self._paths = paths

    def connect(self) -> None:
        """Raises CallError, with advice, when no socket lets us in."""
        denied = ""
        for path in self._paths:
            connected = socket.socket(socket.AF_UNIX)
            connected.settimeout(self.timeout)
            try:
                connected.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                connected.close()
            except PermissionError:
                connected.close()
                denied = denied or path
            except TimeoutError:
                connected.close()
                raise
            except OSError as failure:
                connected.close()
                raise _error("unreachable", f"{path}: {failure.strerror or failure}") from failure
            else:
                self.sock = connected
                return
        if denied:
            raise _error("not_permitted", f"no permission to use {denied}", _advice(denied))
        raise _error(
            "unreachable",
            f"hyperllamad is not running (nothing listens on {' or '.join(self._paths)})",
            "start it with: systemctl start hyperllamad (or, without root: hyperllamad)",
        )


def _advice(path: str) -> str:
    """How to get through a socket's door: become a member of its group."""
    import grp  # noqa: PLC0415  only needed here, and every start counts

    try:
        group = grp.getgrgid(os.stat(path).st_gid).gr_name  # noqa: PTH116  pathlib costs more than the rest of a start
    except (OSError, KeyError):
        group = "hyperllama"
    return f"join its group with: sudo usermod -aG {group} $USER (then log in again), or use sudo"
