"""The Host check: a web page must not reach a loopback server through a name it controls (DNS rebinding).

Ollama's rules (spec section 1.4).  Only put in place when the server is bound to loopback: elsewhere people may call
it what they like.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

from hyperllamad.front.asgi import App, Headers, Receive, Scope, Send, answer_empty, header

_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_USUAL = frozenset({"127.0.0.1", "::1"})  # what clients mostly say, known without a look at it


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HostCheck:
    """The layer.  `allow_header` gives the Allow header of a path's route, for the answers made here."""

    def __init__(self, inner: App, allow_header: Callable[[str, str], Headers]) -> None:
        self._inner = inner
        self._allow_header = allow_header
        self._own_name = socket.gethostname().lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._inner(scope, receive, send)
        host = _without_port(header(scope, b"host") or "").lower()
        if host in _USUAL:
            return await self._inner(scope, receive, send)
        address = _address(host)
        if address is not None and _is_ours(address):
            return await self._inner(scope, receive, send)
        if address is None and self._is_local_name(host):
            if scope["method"] == "OPTIONS":  # Ollama answers every such OPTIONS, without looking at the path
                return await answer_empty(send, 204, self._allow_header(scope["path"], "OPTIONS"))
            return await self._inner(scope, receive, send)
        return await answer_empty(send, 403, self._allow_header(scope["path"], scope["method"]))

    def _is_local_name(self, host: str) -> bool:
        return host in {"", "localhost", self._own_name} or host.endswith(_LOCAL_SUFFIXES)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_ours(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if address.is_loopback or address.is_unspecified:
        return True
    if any(address in network for network in _PRIVATE if network.version == address.version):
        return True
    # The kernel lets us bind to the addresses of our own interfaces, and to no others.
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
