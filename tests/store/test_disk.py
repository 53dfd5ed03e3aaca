"""What is said of a disk that refuses."""

from __future__ import annotations

import errno

import pytest

from hyperllamad.store import disk


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EACCES, "the daemon's user must be able to read it, and to enter every directory on the way"),
        (errno.EIO, "check the path and the disk"),
    ],
)
def test_a_file_that_cannot_be_read(number: int, hint: str) -> None:
    failure = disk.unreadable("/m", OSError(number, "No", "/m/x.gguf"))
    assert (failure.message, failure.hint) == ("/m/x.gguf cannot be read: No", hint)
    assert disk.unreadable("/m", OSError(number, "No")).message == "/m cannot be read: No"
