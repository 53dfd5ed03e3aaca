"""Sockets that outlive the daemon: taken over from systemd at start, handed to it for the next life.

systemd gives listening sockets to a service in two ways (sd_listen_fds(3)): those of its .socket units, and those an
earlier life of the same service left in the descriptor store (sd_pid_notify_with_fds(3)).  While we restart, the kernel
lets clients connect to them and wait.  Owns that protocol; must not know what the sockets are for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence

FIRST = 3  # SD_LISTEN_FDS_START


def take(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[socket.socket]]:
    """The sockets passed to this process, by their names; the caller owns them.  Nothing when there are none.

    The variables are removed, so that no child believes that they are meant for it.
    """
    pid, count, names = (environ.pop(f"LISTEN_{what}", "") for what in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    stated = names.split(":") if names else []
    found: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        os.set_inheritable(FIRST + index, False)  # noqa: FBT003  the os module takes it no other way
        sock = socket.socket(fileno=FIRST + index)
        sock.setblocking(False)  # noqa: FBT003  the socket module takes it no other way
        found.setdefault(stated[index] if index < len(stated) else "unknown", []).append(sock)
    return found


def keep(name: str, sockets: Sequence[socket.socket], environ: Mapping[str, str] = os.environ) -> bool:
    """Leave copies of `sockets` with systemd for the next life; False when nobody keeps them.

    systemd states in $FDSTORE how many it keeps for this service (systemd.exec(5)); what it has already is not
    stored twice.
    """
    room = environ.get("FDSTORE", "")
    if not room.isdecimal() or int(room) < len(sockets):
        return False
    # FDPOLL=0: a socket nobody listens on yet would look dead to systemd.
    return _notify(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", [sock.fileno() for sock in sockets], environ)


def forget(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Let systemd close what it keeps under `name`."""
    return _notify(f"FDSTOREREMOVE=1\nFDNAME={name}", [], environ)


def _notify(state: str, descriptors: Sequence[int], environ: Mapping[str, str]) -> bool:
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        try:
            systemd.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            socket.send_fds(systemd, [state.encode()], list(descriptors))
        except OSError:
            return False
    return True
