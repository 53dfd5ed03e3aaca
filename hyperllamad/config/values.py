"""How values are written in the configuration: times, sizes and the address of the API.  Pure."""

from __future__ import annotations

import functools
import re

from hyperllamad.core import durations
from hyperllamad.core.errors import BadRequestError


@functools.lru_cache(256)  # some are asked for with every request; the configuration has no more of them
def parse_seconds(text: str) -> float:
    """Seconds in "5m30s" or, as in OLLAMA_KEEP_ALIVE, a bare whole number of seconds; raises BadRequestError."""
    return durations.parse(f"{text}s" if re.fullmatch(r"[+-]?\d+", text) else text)


def parse_host(text: str) -> tuple[str, int]:
    """(host, port) of OLLAMA_HOST's forms: `host`, `:port`, `host:port`, `scheme://host:port/path`, `[v6]:port`.

    An empty host with a port means every interface, an empty text the default, as in Ollama's envconfig.Host.
    """
    scheme, found, rest = text.strip().rpartition("://")
    rest = rest.split("/", 1)[0]
    port_default = {"http": 80, "https": 443}.get(scheme, 11434) if found else 11434
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*|[0-9a-fA-F:]*:[0-9a-fA-F:]*:[0-9a-fA-F]*)(?::(\d+))?", rest)
    host, port = (match[1], match[2]) if match else (rest.rsplit(":", 1)[0], None)
    number = int(port) if port and int(port) <= 65535 else port_default
    return host.strip("[]") if rest else "127.0.0.1", number


def parse_size(text: str) -> int:
    """Bytes in "512MiB", "4 GB" or "1073741824"; raises BadRequestError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise BadRequestError(f'not a size: "{text}"', hint='a size looks like "4GiB"')
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))
