"""After every test of this room: no process of it is left, not even a zombie, and no descriptor."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperllamad.supervision import orphans
from tests.supervision.guarding import Guarded
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


@pytest.fixture
def guarded() -> Iterator[Any]:
    made: list[Guarded] = []

    def make(*command: str, **more: Any) -> Guarded:
        made.append(Guarded(*command, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()
        assert one.process.stdout is not None
        one.process.stdout.close()
        one.process.wait(10)
