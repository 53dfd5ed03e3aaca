"""A daemon that says what it was told to say: scripted answers on a real Unix socket, to be read by the real client."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperllamactl import __version__


@dataclass
class Script:
    """One answer: its lines (dicts become JSON, text goes as it is) and how it ends."""

    lines: list[dict[str, Any] | str]
    status: int = 200
    breaks_off: bool = False  # the connection is closed instead of the answer being ended
    waits: bool = False  # until the client hangs up
    server: str = f"hyperllamad/{__version__}"


@dataclass
class FakeDaemon:
    """Answers `/v1/NAME` with the script of NAME; keeps what it was asked."""

    path: Path
    scripts: dict[str, Script] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)

    def says(self, name: str, *lines: dict[str, Any] | str, **more: Any) -> None:
        self.scripts[name] = Script(list(lines), **more)

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.answer(connection)

    def answer(self, connection: socket.socket) -> None:
        reader = connection.makefile("rb")
        with reader:
            head = b"".join(iter(reader.readline, b"\r\n")).decode()
            if not head:
                return
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            name = head.split()[1].removeprefix("/v1/")
            self.heads.append(head)
            self.asked.append((name, json.loads(reader.read(length))))
            script = self.scripts[name]
            connection.sendall(
                f"HTTP/1.1 {script.status} X\r\nserver: {script.server}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
            )
            for line in script.lines:
                data = line.encode() if isinstance(line, str) else json.dumps(line).encode() + b"\n"
                connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))
            if script.waits:
                reader.read()
                self.hung_up.set()
            elif not script.breaks_off:
                connection.sendall(b"0\r\n\r\n")


@contextlib.contextmanager
def running(path: Path) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=daemon.serve, args=(listening,))
        thread.start()
        yield daemon
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
