"""Clients that behave badly, many of them: they hang up, say nothing, or take for ever to speak or to read."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import resource
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.daemon import Daemon, eventually
from tests.faults.house import answer_of, chat, fakes, row
from tests.faults.report import Row

SLOW = ("--token-delay", "0.02", "--words", "1000000")
SPARE_MEMORY = 40 << 20  # bytes the daemon may have grown by: allocators keep some of what a crowd took
SPARE_DESCRIPTORS = 8


def _raw(running: Daemon, data: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", running.port), timeout=30)
    made.sendall(data)
    return made


def _request(words: int) -> bytes:
    messages = [{"role": "user", "content": "count " + "x" * 2000}]
    body = json.dumps({"model": "m", "messages": messages, "options": {"num_predict": words}}).encode()
    return b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def hang_ups(clients: int, *, seed: int = 1) -> Row:
    """Each leaves at a random byte of its request or of the answer."""
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as root, fakes(Path(root), {"m": SLOW}) as running:
        before = _warm(running)
        request = _request(1_000_000)
        cuts = [dice.randrange(len(request) + 3000) for _ in range(clients)]

        def one(at: int) -> None:
            with contextlib.suppress(OSError), contextlib.closing(_raw(running, request[:at])) as client:
                client.settimeout(10)
                left = at - len(request)
                while left > 0 and (got := client.recv(min(left, 500))):
                    left -= len(got)

        with ThreadPoolExecutor(32) as pool:
            done = [pool.submit(one, at) for at in cuts]
            served = sum("".join(chat(running, "m", 5)) == answer_of(5) for _ in range(20))
            for each in done:
                each.result()
        return _after(running, before, "clients that hang up at a random byte", clients, (served, 20))


def idle(connections: int) -> Row:
    """They connect and say nothing; in the end they are closed from this side."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * connections)), hard))
    with tempfile.TemporaryDirectory() as root, fakes(Path(root), {"m": SLOW}) as running:
        before = _warm(running)
        with contextlib.ExitStack() as held:
            for _ in range(connections):
                with contextlib.suppress(OSError):
                    held.enter_context(contextlib.closing(_raw(running)))
            served = sum("".join(chat(running, "m", 5)) == answer_of(5) for _ in range(20))
        return _after(running, before, "idle connections", connections, (served, 20))


def slow_headers(clients: int, seconds: float) -> Row:
    """A byte now and then, of a head that never ends."""
    return _slow(
        clients, seconds, "clients that never finish their headers", b"POST /api/chat HTTP/1.1\r\nHost: a\r\nX: "
    )


def slow_readers(clients: int, seconds: float) -> Row:
    """They ask for a long answer and read none of it."""
    return _slow(clients, seconds, "clients that ask and do not read", _request(1_000_000))


def _slow(clients: int, seconds: float, what: str, said: bytes) -> Row:
    with tempfile.TemporaryDirectory() as root, fakes(Path(root), {"m": (*SLOW, "--token-delay", "0.001")}) as running:
        fresh = _warm(running)
        _crowd(running, clients, seconds / 4, said)
        _settle(running, fresh)
        before = usage(running)  # what one crowd leaves is the allocator's; a second one must not add to it
        served, asked = _crowd(running, clients, seconds, said)
        found = _after(running, before, what, clients, (served, asked))
        first = (before[1] - fresh[1]) / 2**20
        return found._replace(seen=f"{found.seen} (after {first:+.0f} MiB by a crowd before)")


def _crowd(running: Daemon, clients: int, seconds: float, said: bytes) -> tuple[int, int]:
    """(answers right, asked) of a well-behaved client among so many that are not, for so long."""
    served = asked = 0
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(contextlib.closing(_raw(running, said))) for _ in range(clients)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            asked += 1
            served += "".join(chat(running, "m", 5)) == answer_of(5)
            if said.endswith(b": "):
                for each in sockets:
                    with contextlib.suppress(OSError):
                        each.sendall(b"x")
            time.sleep(0.2)
    return served, asked


def _warm(running: Daemon) -> tuple[int, int]:
    """The usage of the daemon once it has answered a few."""
    with ThreadPoolExecutor(16) as pool:
        assert all("".join(text) == answer_of(5) for text in pool.map(lambda _: list(chat(running, "m", 5)), range(64)))
    eventually(lambda: _requests(running) == 0, within=10, what="quiet")
    return usage(running)


def usage(running: Daemon) -> tuple[int, int]:
    """(descriptors, bytes of anonymous memory) of the daemon, swapped out or not.

    Pages of its program and libraries do not count: the kernel takes and brings those as it likes.
    """
    assert running.process is not None
    proc = Path(f"/proc/{running.process.pid}")
    fields = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    kibibytes = sum(int(fields[name].split()[0]) for name in ("RssAnon", "VmSwap"))
    return len(list((proc / "fd").iterdir())), kibibytes << 10


class _Unix(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


def _requests(running: Daemon) -> int:
    """Requests in the engine, by its own metrics."""
    path = next((running.root / "run/e").glob("*/*.sock"))
    with contextlib.closing(_Unix(str(path), timeout=10)) as connection:
        connection.request("GET", "/metrics", headers={"Host": "engine"})
        text = connection.getresponse().read().decode()
    return int(text.split("fake_requests_running ")[1].split()[0])


def _settle(running: Daemon, before: tuple[int, int]) -> None:
    """Until nobody of the crowd is left, or for a minute."""

    def quiet() -> bool:
        seen = row(running, "m")
        assert seen is not None
        return _requests(running) == 0 and seen.running == 0 and usage(running)[0] <= before[0] + SPARE_DESCRIPTORS

    with contextlib.suppress(AssertionError):
        eventually(quiet, within=60, what="quiet again")


def _after(running: Daemon, before: tuple[int, int], what: str, count: int, served: tuple[int, int]) -> Row:
    _settle(running, before)
    seen = row(running, "m")
    leases = seen.running if seen is not None else 0
    descriptors, memory = (now - then for now, then in zip(usage(running), before, strict=True))
    engine = _requests(running)
    holds = not leases and not engine and descriptors <= SPARE_DESCRIPTORS and memory <= SPARE_MEMORY
    told = f"{leases} leases and {engine} engine requests left; {served[0]} of {served[1]} others served; "
    told += f"descriptors {descriptors:+d}, memory {memory / 2**20:+.0f} MiB"
    return Row(what, str(count), holds and served[0] == served[1], told)
