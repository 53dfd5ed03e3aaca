"""A real engine as a child of the test, started and asked exactly as the engine's own description says."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperllamad.config.tables import EnginesTable
from hyperllamad.core.models import Kind, Model, Settings
from hyperllamad.engines import base, compiled, host
from hyperllamad.engines.base import Engine, Place
from hyperllamad.engines.homes import Homes
from tests.daemon import INSTALLED, eventually

LOADING = 300.0  # seconds; MAX compiles a model it has not seen


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass
class Running:
    """An engine that answers."""

    engine: Engine
    model: Model
    settings: Settings
    socket: str

    def ask(self, kind: Kind, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """What our body makes of the request, sent; status and reply."""
        repaired = self.engine.body(kind, body, self.model, self.settings)
        return self.send("POST", kind.value, repaired)

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        with contextlib.closing(_Connection(self.socket)) as connection:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            raw = reply.read()
        return reply.status, json.loads(raw) if raw else {}

    def ready(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self.send("GET", self.engine.probe.ready)[0] == 200
        return False


@contextlib.contextmanager
def running(name: str, model: Model, *, context: int = 2048, args: tuple[str, ...] = ()) -> Iterator[Running]:
    """`model` on the engine of that name; its processes are gone afterwards."""
    home = Homes(INSTALLED.engines, {}).current(name)
    assert home is not None, "`make engines` installs the engines"
    engine = base.load(name)
    assert engine.refusal(model, home) == ""
    settings = Settings(name, home.id, "cpu", context=context, parallel=2, args=args)
    root = Path(tempfile.mkdtemp(prefix="hl-", dir="/tmp"))  # short: socket paths end at 107 bytes
    cache = compiled.of(INSTALLED.state, home.id)
    for directory in (root / "tmp", root / "cwd", cache):
        directory.mkdir(parents=True, exist_ok=True)
    place = Place(str(root / "e.sock"), str(root / "tmp"), str(root / "cwd"), str(cache), host.read(EnginesTable()))
    launch = engine.launch(model, settings, home, place)
    environment = {"PATH": os.environ["PATH"], "HOME": str(root), **launch.env}
    with (root / "log").open("wb") as log:
        child = subprocess.Popen(
            launch.argv, env=environment, cwd=launch.cwd, stdout=log, stderr=log, start_new_session=True
        )

    def answers() -> bool:
        assert child.poll() is None, (root / "log").read_text()[-4000:]
        return started.ready()

    started = Running(engine, model, settings, place.socket)
    try:
        eventually(answers, within=LOADING, what=f"{engine.title} answers")
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(30)
        shutil.rmtree(root, ignore_errors=True)
