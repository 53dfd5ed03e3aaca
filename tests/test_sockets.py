"""sockets.py: stale files, living ones, long paths, taken ports."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hyperllamad import sockets


@pytest.fixture
def unix(tmp_path: Path) -> Path:
    return tmp_path / "s"


def test_a_stale_socket_file_is_replaced(unix: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(unix))
    with sockets.open_unix(unix, mode=0o600) as sock:
        assert sock.getsockname() == str(unix)
        assert unix.stat().st_mode & 0o777 == 0o600


def test_a_living_socket_is_left_alone(unix: Path) -> None:
    with sockets.open_unix(unix) as alive:
        alive.listen()
        with pytest.raises(OSError, match="another hyperllamad answers there"):
            sockets.open_unix(unix)


def test_a_file_that_is_no_socket_is_left_alone(unix: Path) -> None:
    unix.write_text("precious")
    with pytest.raises(OSError, match="not a socket"):
        sockets.open_unix(unix)
    assert unix.read_text() == "precious"


def test_a_long_path_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="107 bytes"):
        sockets.open_unix(tmp_path / ("x" * 120))


def test_a_taken_port_is_named() -> None:
    first = sockets.open_tcp("127.0.0.1", 0)[0]
    first.listen()
    port = first.getsockname()[1]
    with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
        sockets.open_tcp("127.0.0.1", port)
    first.close()
