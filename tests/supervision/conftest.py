"""After every test of this room: no process of it is left, not even a zombie, and no descriptor."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperllamad.supervision import orphans
from tests.supervision.processes import command, mine, wait_for_blocking


@pytest.fixture(autouse=True)
def _nobody_left() -> Iterator[None]:
    before = mine()
    yield
    try:
        wait_for_blocking(lambda: mine() <= before, 3.0)
    except AssertionError:
        pytest.fail(f"left behind: {[(pid, command(pid)) for pid in mine() - before]}")
    finally:
        ctypes.CDLL(None).prctl(orphans.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runtime directory with a short path: Unix sockets allow no long ones."""
    return tmp_path_factory.mktemp("r")
