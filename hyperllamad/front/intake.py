"""How much of bodies may be in memory at once, of all requests together: beyond it large ones are told to come later.

One body has a limit of its own, and a server takes hundreds of them at a time.  A body counts until its request is
over, because what was read out of it lives as long.  Small ones always pass, and uploads, which are never held.
"""

from __future__ import annotations

import asyncio

from hyperllamad.front import upload
from hyperllamad.front.asgi import App, Message, Receive, Scope, Send

MOST = 4 << 30  # bytes; a hundred chats with pictures
SMALL = 1 << 20  # bytes
_RETRY_AFTER = b"5"  # seconds
_REFUSAL = b'{"error":"too many large requests are being read at once (try again in a moment)"}'


class Intake:
    """The layer, right before the routes."""

    def __init__(self, inner: App) -> None:
        self._inner = inner
        self._held = 0  # bytes that have come, of all requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or upload.is_upload(scope):
            return await self._inner(scope, receive, send)
        body, begun = _Body(self, receive), False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._inner(scope, body.receive, noted)
        finally:
            self._held -= body.came
        if body.refused and not begun:
            await body.drain()
            await _refuse(send)
        return None

    def has_room(self, came: int, size: int) -> bool:
        """So many more bytes are here, of a body that is now so large: may it go on?"""
        self._held += came
        return size <= SMALL or self._held <= MOST


class _Body:
    """One body on its way in.  What it says of its length is not believed: room belongs to who uses it."""

    def __init__(self, intake: Intake, receive: Receive) -> None:
        self._intake, self._receive = intake, receive
        self._whole = False
        self.came = 0
        self.refused = False

    async def receive(self) -> Message:
        """For the routes: the next message, or a hang-up where there is no more room."""
        message = await self._next()
        size = len(message.get("body", b""))
        self.came += size
        self.refused = self.refused or not self._intake.has_room(size, self.came)
        return {"type": "http.disconnect"} if self.refused else message

    async def drain(self) -> None:
        """Let the client send the rest, which nobody keeps: while it sends it would not hear the answer."""
        try:
            async with asyncio.timeout(upload.PATIENCE):
                while not self._whole:
                    await self._next()
        except TimeoutError:
            return

    async def _next(self) -> Message:
        message = await self._receive()
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"application/json; charset=utf-8"),
        (b"content-length", b"%d" % len(_REFUSAL)),
        (b"retry-after", _RETRY_AFTER),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _REFUSAL, "more_body": False})
