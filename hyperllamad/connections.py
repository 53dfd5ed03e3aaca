"""The open connections of one door: how many there may be, from where, and how long one may keep us waiting.

Owns the count and the sockets' own timers; must not know HTTP.  Most of the waiting is left to the kernel, which needs
nobody to be woken for it: TCP_USER_TIMEOUT for a client that does not take what it asked for, keep-alive probes for one
whose machine is gone (tcp(7)).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
import socket
from collections import Counter
from dataclasses import dataclass

RESERVE = 256  # descriptors for everything that is not a client: files, engines, their pipes and sockets
PROBE_AFTER, PROBE_EVERY, PROBES = 60, 15, 4  # seconds of silence, seconds between probes, unanswered ones


@dataclass(frozen=True, slots=True)
class Bounds:
    """Counts, 0 = no limit; seconds."""

    connections: int = 0
    per_address: int = 0  # of another machine: programs on this one share an address
    head: float = 10.0  # from the first byte of a request to the end of its headers
    idle: float = 75.0  # between two requests; clients keep pools for a minute
    unread: float = 120.0  # for a client that takes nothing of its answer; 0 = for ever


UNBOUNDED = Bounds()


def raise_descriptor_limit() -> int:
    """Take as many descriptors as we may have; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # an unlimited one cannot be taken on every kernel
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def affordable(descriptors: int) -> int:
    """Connections for which there are enough: each may need one more towards an engine."""
    return max(16, (descriptors - RESERVE) // 2)


class Connections:
    """Those that are open now, and the wait for their end."""

    def __init__(self, bounds: Bounds = UNBOUNDED) -> None:
        self.bounds = bounds
        self._writers: dict[asyncio.StreamWriter, str] = {}  # with the address, "" = not counted by it
        self._by_address: Counter[str] = Counter()
        self._none_left = asyncio.Event()
        self._none_left.set()

    def refusal(self, writer: asyncio.StreamWriter) -> str:
        """Why one more may not be open, in a sentence; "" when it may."""
        bounds = self.bounds
        if bounds.connections and len(self._writers) >= bounds.connections:
            return f"the server has {bounds.connections} connections open and takes no more"
        if bounds.per_address and self._by_address[_address(writer)] >= bounds.per_address:
            return f"your address has {bounds.per_address} connections open and may have no more"
        return ""

    def add(self, writer: asyncio.StreamWriter) -> None:
        """Count it until it is removed."""
        address = self._writers[writer] = _address(writer)
        if address:
            self._by_address[address] += 1
        self._none_left.clear()

    def remove(self, writer: asyncio.StreamWriter) -> None:
        if address := self._writers.pop(writer):
            self._by_address -= Counter((address,))  # an address without connections is forgotten
        if not self._writers:
            self._none_left.set()

    def tune(self, sock: socket.socket) -> None:
        """Let the kernel watch over the other end."""
        # Small writes that follow each other are tokens: none may wait for the last one's ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_EVERY)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(self.bounds.unread * 1000))

    async def wait_none_left(self) -> None:
        await self._none_left.wait()

    def hang_up(self) -> None:
        # Abort, never only cancel: a cancelled handler would still wait for a peer that stopped reading.
        for writer in list(self._writers):
            writer.transport.abort()


def _address(writer: asyncio.StreamWriter) -> str:
    """Of the other machine; "" for this one and for Unix sockets."""
    peer = writer.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return ""
    host = str(peer[0]).partition("%")[0]
    return "" if ipaddress.ip_address(host).is_loopback else host
