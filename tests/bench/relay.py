"""`python -m tests.bench.relay`: CPU time of the daemon's front per streamed token, beside a plain relay.

A scripted engine gives every open stream one token each step.  Each front serves the same streams in turn, several
rounds; reported is the median of CPU microseconds of the front's process per token, and the ratio within the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.daemon import eventually, free_port

TOKENS, STEP_MS, ROUNDS = 250, 20, 5
BODY = b'{"model":"bench","messages":[{"role":"user","content":"hello"}]}'
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, to a nanosecond where schedstat is kept."""
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        if total := sum(int((task / "schedstat").read_text().split()[0]) for task in tasks):
            return total / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


async def stream(port: int) -> int:
    """Lines of one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(b"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY))
    lines, rest = 0, b""
    while not rest.endswith(b"0\r\n\r\n"):
        data = await reader.read(1 << 16)
        assert data, "the answer was cut off"
        lines += data.count(b'"done":')
        rest = (rest + data)[-5:]
    writer.close()
    return lines


async def streams(port: int, count: int) -> int:
    return sum(await asyncio.gather(*(stream(port) for _ in range(count))))


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-m", *arguments])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def measure(pid: int, port: int, count: int) -> float:
    """CPU microseconds per token, the median of ROUNDS."""
    asyncio.run(streams(port, count))  # warm
    found = []
    for _ in range(ROUNDS):
        before = cpu_seconds(pid)
        lines = asyncio.run(streams(port, count))
        found.append((cpu_seconds(pid) - before) / lines * 1e6)
    return statistics.median(found)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hl-") as directory:
        engine = f"{directory}/engine.sock"
        with running("tests.bench.upstream", engine, str(TOKENS), str(STEP_MS)):
            eventually(lambda: Path(engine).exists(), within=10, what="the scripted engine listens")
            ours, plain = free_port(), free_port()
            with (
                running("tests.bench.our_front", engine, str(ours)) as our_pid,
                running("tests.bench.plain_relay", engine, str(plain)) as plain_pid,
            ):
                eventually(lambda: listens(ours) and listens(plain), within=20, what="both fronts listen")
                print(f"{TOKENS} tokens a stream, one every {STEP_MS} ms; median of {ROUNDS} rounds; us CPU per token")
                print("streams  plain relay  hyperllamad  ratio")
                for count in (1, 8, 64):
                    theirs, mine = measure(plain_pid, plain, count), measure(our_pid, ours, count)
                    print(f"{count:7}  {theirs:11.1f}  {mine:11.1f}  {mine / theirs:5.2f}")


if __name__ == "__main__":
    main()
