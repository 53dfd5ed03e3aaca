"""Start time: what a bare `ps` imports is a list, and whoever adds to it should know."""

from __future__ import annotations

import subprocess
import sys

from tests.ctl import replies
from tests.ctl.fake_daemon import FakeDaemon

WIRE = ("base", "daemon", "decisions", "engines", "instances", "keys", "machine", "store", "table")
OWN = {
    f"hyperllamactl.{name}"
    for name in ("cli", "client", "commands", "decisions", "exits", "machine", "protocol", "render", "store", "talk")
} | {f"hyperllamactl.protocol.{name}" for name in WIRE}
PROGRAM = """
import sys
before = set(sys.modules)
import argparse, http.client, locale, msgspec  # argparse of Python 3.13 imports locale when it first needs it
if sys.version_info >= (3, 14):
    import _colorize  # and that of 3.14 the colours of its help
allowed = set(sys.modules)
from hyperllamactl import cli
assert cli.main(sys.argv[1:]) == 0
print(*sorted(set(sys.modules) - allowed))
"""


def test_ps_imports_argparse_http_client_msgspec_and_itself_only(daemon: FakeDaemon) -> None:
    daemon.says("ps", replies.instances(replies.READY))
    command = [sys.executable, "-c", PROGRAM, "--socket", str(daemon.path), "ps"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    new = {name for name in ran.stdout.splitlines()[-1].split() if not name.startswith("encodings.")}
    assert new == {"hyperllamactl", *OWN}
