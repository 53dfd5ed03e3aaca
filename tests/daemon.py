"""Runs hyperllamad as a process of its own for tests: own configuration, port, state and sockets, real engine homes."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from hyperllamad.config.load import load_config

T = TypeVar("T")

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)  # before any fork

# Read at import, before a fixture hides the developer's environment: where `make engines` installed.
INSTALLED = load_config(None, os.environ).paths


def eventually(check: Callable[[], T], *, within: float, what: str) -> T:
    """The first true answer of `check`, asked again and again; for facts in processes that cannot tell us."""
    deadline = time.monotonic() + within
    while not (answer := check()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)
    return answer


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def session_members(leader: int) -> list[int]:
    """Processes alive in the session of `leader`, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[3]) == leader and fields[0] not in "ZX":
                    found.append(int(entry.name))
    return found


def _with_us() -> None:
    """In the child, before it becomes the daemon: it shall not outlive the tests, however those are ended.

    The kernel means the thread that started it, so a daemon must not be started by one that ends before its tests do.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@dataclass
class Daemon:
    """A running hyperllamad and the ways to talk to it."""

    root: Path
    port: int
    environ: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    module: str = "hyperllamad"
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.root / "log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until the API answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, "--config", str(self.root / "etc")],
                stdout=log, stderr=log, env=self.environ, start_new_session=True,
                preexec_fn=_with_us,  # noqa: PLW1509 - one call of the kernel, which is safe beside threads
            )  # fmt: skip
        eventually(self._answers, within=20, what="the API answers")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self, *, within: float = 60) -> int:
        """SIGTERM, wait, exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def ctl(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "hyperllamactl", "--socket", str(self.root / "run/admin.sock"), *arguments],
            capture_output=True, text=True, env=self.environ, timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr, self.log.read_text()[-4000:])
        return done

    def ps(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.ctl("ps", "--json").stdout)["instances"]
        return rows

    def row(self, model: str) -> dict[str, Any]:
        return next(row for row in self.ps() if row["name"] == f"{model}:latest")

    def leftovers(self) -> list[int]:
        """Processes that work in this daemon's runtime directory: engines and what they started."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and str((entry / "cwd").readlink()).startswith(str(self.root / "run")):
                    found.append(int(entry.name))
        return found


@contextlib.contextmanager
def daemon(
    models: dict[str, dict[str, Any]],
    *,
    main: str = "",
    environ: dict[str, str] | None = None,
    engines: Path = INSTALLED.engines,
    tables: dict[str, str] | None = None,
    server: str = "",
    module: str = "hyperllamad",
) -> Iterator[Daemon]:
    """A started daemon that serves `models`: name -> keys of its models.d file.  `tables` are files of engines.d.

    `server` are further lines of [server], `main` is the rest of the file; `module` is run as the daemon.
    """
    root = Path(tempfile.mkdtemp(prefix="hl-", dir="/tmp"))  # short: socket paths end at 107 bytes
    port = free_port()
    etc, state = root / "etc", root / "state"
    (etc / "models.d").mkdir(parents=True)
    state.mkdir()
    engines.mkdir(parents=True, exist_ok=True)
    (state / "engines").symlink_to(engines)
    compiled = INSTALLED.state / "compiled"  # which took minutes
    compiled.mkdir(parents=True, exist_ok=True)
    (state / "compiled").symlink_to(compiled)
    paths = f'[paths]\nstate = "{state}"\nruntime = "{root / "run"}"\ncache = "{root / "cache"}"\n'
    server = f'[server]\nhost = "127.0.0.1:{port}"\nshutdown_grace = "5s"\n{server}\n'
    (etc / "hyperllamad.toml").write_text(f"{server}{paths}{main}")
    (etc / "engines.d").mkdir()
    for name, text in (tables or {}).items():
        (etc / "engines.d" / f"{name}.toml").write_text(text)
    for name, keys in models.items():
        (etc / "models.d" / f"{name}.toml").write_text(tomli_w.dumps({"name": name, **keys}))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OLLAMA_", "HYPERLLAMA_", "NOTIFY_"))}
    running = Daemon(root, port, {**clean, "OLLAMA_HOST": "", **(environ or {})}, module=module)
    try:
        running.start()
        yield running
        assert running.process is not None
        if running.process.poll() is None:
            assert running.stop() == 0, running.log.read_text()[-4000:]
        assert running.leftovers() == [], "processes left behind"
    finally:
        if running.process is not None and running.process.poll() is None:
            running.kill()
        shutil.rmtree(root, ignore_errors=True)
