"""`python -m tests.bench.idle`: how long the daemon takes to be READY, what it holds in memory, how often it wakes up.

Starts hyperllamad as systemd would (NOTIFY_SOCKET), with no model, five times; then watches the last one for a while.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.daemon import free_port

RUNS, WATCHED = 5, 30.0  # starts; seconds


def start(root: Path, notify: socket.socket) -> tuple[subprocess.Popen[bytes], float]:
    """The daemon, and the seconds until its READY=1."""
    environ = {**os.environ, "NOTIFY_SOCKET": str(root / "notify"), "OLLAMA_HOST": f"127.0.0.1:{free_port()}"}
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "hyperllamad", "--config", str(root / "etc")], env=environ)
    while b"READY=1" not in notify.recv(4096):
        pass
    return process, time.monotonic() - began


def status(pid: int, key: str) -> int:
    """A number from /proc/PID/status (kB, or a count)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="hl-"))
    (root / "etc").mkdir()
    (root / "etc/hyperllamad.toml").write_text(
        f'[paths]\nstate = "{root}/state"\nruntime = "{root}/run"\ncache = "{root}/cache"\n'
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(root / "notify"))
        times = []
        for run in range(RUNS):
            process, seconds = start(root, notify)
            times.append(seconds)
            if run < RUNS - 1:
                process.terminate()
                process.wait()
        pid = process.pid
        time.sleep(5)  # what start left to be done is done
        before = status(pid, "voluntary_ctxt_switches") + status(pid, "nonvoluntary_ctxt_switches")
        time.sleep(WATCHED)
        woken = status(pid, "voluntary_ctxt_switches") + status(pid, "nonvoluntary_ctxt_switches") - before
        memory = status(pid, "VmRSS") / 1024
        process.terminate()
        code = process.wait()
    print(f"READY after {statistics.median(times):.2f} s (median of {RUNS}; {min(times):.2f} to {max(times):.2f})")
    print(f"resident memory {memory:.1f} MiB; {woken} wake-ups in {WATCHED:.0f} s; exit status {code}")


if __name__ == "__main__":
    main()
