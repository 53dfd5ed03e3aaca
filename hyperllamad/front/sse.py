"""Server-sent events out of bytes as they arrive.  Knows nothing of what the events say."""

from __future__ import annotations

from hyperllamad.core.errors import HyperLlamaError

LONGEST = 8 * 1024 * 1024  # bytes; an event without an end in sight is garbage, and must not fill the memory


class EventTooLongError(HyperLlamaError):
    """The other side sent bytes without ever ending a line."""

    code = "event_too_long"

    def __init__(self) -> None:
        super().__init__(f"an event is longer than {LONGEST} bytes")


class EventLines:
    """Cuts bytes into the payloads of `data:` lines.

    Every engine writes one JSON document on one line per event, so a line is an event and nothing waits for the blank
    line behind it.  llama.cpp has also written failures as an `error:` line; it is handed out like the others.
    Comments (`: ping`), other fields, and both kinds of line end (MAX sends CR LF) are taken care of.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""  # the beginning of a line whose end has not come

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes, in order, without white space around them; raises EventTooLongError."""
        if not self._rest and data[:7] == b"data: {" and data[-2:] == b"\n\n" and data.find(b"\n") == len(data) - 2:
            return [data[6:-2].rstrip()]  # one whole event, as almost every read is while the engine is not ahead of us
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST:
            raise EventTooLongError
        return [line.partition(b":")[2].strip() for line in lines if line.startswith((b"data:", b"error:"))]
