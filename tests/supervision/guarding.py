"""A guard as the process it is, for tests that are its daemon."""

from __future__ import annotations

import ctypes
import json
import socket
import subprocess
import sys
from functools import partial
from typing import Any

from hyperllamad.supervision.child import GUARD

PR_CAPBSET_DROP = 24  # linux/prctl.h

# A tree of the kind vLLM makes, plus one who left the session, plus one whose parent died at once.
TREE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def child(then):
    pid = os.fork()
    if pid == 0:
        then()
        time.sleep(600)
        os._exit(0)
    print(pid, flush=True)
    return pid
child(lambda: child(lambda: None))
child(os.setsid)
def twice():
    os.setsid()
    child(lambda: None)
    os._exit(0)
os.waitpid(child(twice), 0)
print("up", flush=True)
"""


class Guarded:
    """A guard with the daemon's end of its socket."""

    def __init__(
        self, *command: str, group: str = "", place: str = "", patience: float = 0, without: int | None = None
    ) -> None:
        """`without`: a capability that it is not to have."""
        self.control, theirs = socket.socketpair()
        self.control.settimeout(10)
        argv = [sys.executable, "-I", "-S", str(GUARD), str(theirs.fileno()), group, place, str(patience), *command]
        out = subprocess.PIPE
        drop = None if without is None else partial(ctypes.CDLL(None).prctl, PR_CAPBSET_DROP, without)
        more: dict[str, Any] = {"start_new_session": True, "text": True, "preexec_fn": drop}
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdout=out, **more)
        theirs.close()
        self._messages = self.control.makefile("r")

    def message(self) -> dict[str, Any]:
        """The next line; {} at the end of the stream."""
        line = self._messages.readline()
        return json.loads(line) if line else {}

    def tree(self, count: int) -> list[int]:
        """The numbers a TREE prints, once it is up."""
        assert self.process.stdout is not None
        lines = {self.process.stdout.readline().strip() for _ in range(count + 1)}
        return [int(line) for line in lines - {"up"}]

    def close(self) -> None:
        self._messages.close()
        self.control.close()


def python(text: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", text, *arguments]
