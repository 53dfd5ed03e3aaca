"""What the checks are made of.  Standard library only: this runs on the machine under test.

A check is a function with a sentence; it raises when the sentence is not true.  run() prints one line for each.
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

API = "http://127.0.0.1:11434"
MODEL = "smollm2:135m"
BOX = "/opt/box"
SLOW = float(os.environ.get("BOX_SLOW", "1"))  # so many times longer may everything take on this machine
ASIDE: list[str] = []  # what was not run, with the reason
_checks: list[tuple[str, Callable[[], None]]] = []


def check(sentence: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a check; they run in the order in which they are written."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        _checks.append((sentence, function))
        return function

    return register


def run() -> tuple[int, int]:
    """(passed, failed) of all registered checks."""
    passed = 0
    for sentence, function in _checks:
        began = time.monotonic()
        try:
            function()
        except Exception as failure:
            place = traceback.extract_tb(failure.__traceback__)[-1]
            text = f"{type(failure).__name__} in {place.name}, line {place.lineno}: {failure}"
            print(f"FAIL  {sentence}\n      {text[:3000]}", flush=True)
        else:
            passed += 1
            print(f"ok    {sentence} ({time.monotonic() - began:.1f} s)", flush=True)
    for sentence in ASIDE:
        print(f"--    not run: {sentence}", flush=True)
    return passed, len(_checks) - passed


def sh(command: str, *, limit: float = 120, status: int = 0) -> str:
    """What a command wrote; it must end with `status`."""
    done = subprocess.run(
        ["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", timeout=limit * SLOW, check=False,
    )  # fmt: skip
    assert done.returncode == status, f"`{command}` ended with {done.returncode}: {done.stdout[-2500:]}"
    return done.stdout.strip()


def show(what: str, unit: str = "hyperllamad.service") -> str:
    return sh(f"systemctl show {unit} -P {what}")


def eventually(look: Callable[[], Any], *, within: float, what: str) -> Any:
    """The first answer of `look` that is true and no error."""
    deadline = time.monotonic() + within * SLOW
    while True:
        try:
            if found := look():
                return found
            problem = "it is not"
        except (AssertionError, OSError, ValueError) as failure:
            problem = str(failure)
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}: {problem}"
        time.sleep(0.1)


def ask(path: str, body: dict[str, Any] | None = None, *, limit: float = 120) -> Any:
    """A request to the API, its answer decoded; an error status is told with the body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data)
    try:
        with urllib.request.urlopen(request, timeout=limit * SLOW) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as failure:
        raise AssertionError(f"{path}: {failure.code} {failure.read().decode()}") from failure


def chat(words: int = 8, model: str = MODEL) -> str:
    """One short answer, of the demo model unless another is named."""
    message = {"role": "user", "content": "What is the capital of France?"}
    options = {"num_predict": words, "temperature": 0}
    answer = ask("/api/chat", {"model": model, "messages": [message], "options": options, "stream": False})
    content = answer["message"]["content"]
    assert content, answer
    return str(content)


def instances() -> list[dict[str, Any]]:
    return list(json.loads(sh("hyperllamactl ps --json"))["instances"])


def processes() -> list[int]:
    """Everything that runs as the service's user."""
    return [int(pid) for pid in sh("pgrep -u hyperllama . || true").split()]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@contextmanager
def load(clients: int = 3) -> Iterator[list[str]]:
    """Clients that ask without a break, each request on a connection of its own; what went wrong is collected."""
    wrong: list[str] = []
    answered: list[int] = []
    enough = threading.Event()

    def keep_asking(number: int) -> None:
        while not enough.is_set():
            try:
                chat() if number else ask("/api/version")
                answered.append(1)
            except (AssertionError, OSError, ValueError) as failure:
                wrong.append(str(failure))

    threads = [threading.Thread(target=keep_asking, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(answered) >= 2 * clients, within=60, what="clients are served before")
        yield wrong
        before = len(answered)
        eventually(lambda: len(answered) >= before + 2 * clients, within=60, what=f"clients are served after {wrong}")
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def stale_modules() -> list[str]:
    """Modules of the package whose byte code does not come with it, or is of another time or size than the source."""
    owned = set(sh("rpm -ql hyperllama").splitlines())
    stale = []
    for path in (Path(name) for name in owned if name.endswith(".py")):
        compiled, of = Path(importlib.util.cache_from_source(str(path))), path.stat()
        fits = struct.pack("<LLL", 0, int(of.st_mtime), of.st_size)  # PEP 552: after the magic number
        if str(compiled) not in owned or compiled.read_bytes()[4:16] != fits:
            stale.append(str(path))
    return stale
