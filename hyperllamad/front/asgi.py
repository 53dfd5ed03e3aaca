"""The few words of ASGI that the layers around Quart speak."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]


def header(scope: Scope, name: bytes) -> str | None:
    """The first value of a header; `name` in lower case, as servers hand them over."""
    for found, value in scope["headers"]:
        if found == name:
            text: str = value.decode("latin-1")
            return text
    return None


async def answer_empty(send: Send, status: int, headers: Headers = ()) -> None:
    """A whole response without a body."""
    length = [] if status == 204 else [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@contextmanager
def hanging_up() -> Iterator[None]:
    """A client that has gone ends the request, which is what the server is about to tell Quart.

    Ending the body instead would make Hypercorn believe that the connection can be used again, and keep it for as long
    as one may idle.
    """
    try:
        yield
    except OSError as gone:
        raise asyncio.CancelledError from gone
