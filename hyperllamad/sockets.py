"""Open the sockets that are listened on: TCP at every address a host stands for, and Unix sockets with their rights.

Must not know what is spoken on them; listen.py serves on what is opened here or was passed to us by systemd.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
from pathlib import Path
from typing import Any


def addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """(family, address) of everything `host` stands for, as bind() takes it; raises OSError.

    An empty host or `*` means every interface, both families.
    """
    passive = None if host in {"", "*"} else host
    found = socket.getaddrinfo(passive, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def open_tcp(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for every address `host` stands for; raises OSError naming the address that failed."""
    opened: list[socket.socket] = []
    try:
        for family, address in addresses(host, port):
            sock = socket.socket(family, socket.SOCK_STREAM)
            opened.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(address)
            except OSError as failure:
                shown = f"[{address[0]}]" if family == socket.AF_INET6 else address[0]
                failure.filename = f"{shown}:{port}"
                raise
            sock.setblocking(False)  # noqa: FBT003  the socket module takes it no other way
    except OSError:
        for sock in opened:
            sock.close()
        raise
    return opened


def open_unix(path: Path, *, mode: int = 0o660, group: str = "") -> socket.socket:
    """A listening Unix socket at `path`; a stale file from an earlier life is replaced.

    `group` may go through the door too, when it exists and we may give it away.  Raises OSError (EADDRINUSE) when
    somebody answers there, and OSError for a path that is not a socket or is too long (107 bytes, man 7 unix).
    """
    if len(os.fsencode(path)) > 107:
        raise OSError(36, "path too long for a Unix socket (107 bytes at most)", str(path))
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        with contextlib.suppress(KeyError, PermissionError):
            if group:
                os.chown(path, -1, grp.getgrnam(group).gr_gid)
        sock.setblocking(False)  # noqa: FBT003  the socket module takes it no other way
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(17, "exists and is not a socket", str(path))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        else:
            raise OSError(98, "another hyperllamad answers there", str(path))
