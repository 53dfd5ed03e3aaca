"""A delegated subtree of control groups for tests, as systemd would hand it to a service: marked, ours to write."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperllamad.supervision import cgroups
from hyperllamad.supervision.cgroups import Delegation
from tests.supervision.processes import wait_for_blocking


def hierarchy() -> Path | None:
    """Where cgroup v2 is mounted and may be written."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(f"{point}/cgroup.procs", os.W_OK):
            return Path(point)
    return None


@contextlib.contextmanager
def delegated(runtime: Path) -> Iterator[Delegation]:
    """Afterwards nobody may be left in it; whoever is, is ended, and the test fails."""
    where = hierarchy()
    if where is None:
        pytest.skip("no cgroup v2 hierarchy that may be written")
    root = where / f"hyperllama-test-{secrets.token_hex(4)}"
    root.mkdir()
    try:
        yield Delegation(root, frozenset(), str(runtime))
        left = [pid for group in root.iterdir() if group.is_dir() for pid in cgroups.members(group)]
        assert left == []
    finally:
        cgroups.kill(root)
        wait_for_blocking(lambda: "populated 0" in (root / "cgroup.events").read_text())
        cgroups.remove(root)
