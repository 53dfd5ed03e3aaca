"""The steps of a long job told to an Ollama client: a line each as they happen, or only the end.

Owns the lines and what becomes of a failure, before the first line and after it.  Knows no job.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import msgspec
from quart import Response

from hyperllamad.core.errors import PullFailedError, RepositoryNotFoundError
from hyperllamad.front import gojson, ollama_lines, replies
from hyperllamad.front.request_scope import record
from hyperllamad.front.stream_body import StreamBody, broken_off
from hyperllamad.store.steps import Step
from hyperllamad.telemetry import fields

log = logging.getLogger(__name__)

SUCCESS = b'{"status":"success"}'


class _Line(msgspec.Struct, omit_defaults=True):
    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


def line(step: Step) -> bytes:
    """A step as a line; what is not known, and a `completed` of 0, is left out."""
    if not step.digest:
        return gojson.encode(_Line(step.status)) + b"\n"
    return gojson.encode(_Line(step.status, step.digest, step.total, step.completed)) + b"\n"


async def answer(steps: AsyncIterator[Step], *, stream: bool) -> Response:
    """The response; raises HyperLlamaError as long as nothing was sent, which is before the first step."""
    record().streaming = True
    telling = _Telling(steps)
    if stream:
        return Response(StreamBody(await telling.line(), telling.line_or_error), content_type=replies.NDJSON)
    while await telling.line():
        pass
    return replies.json(SUCCESS, content_type=replies.BARE_JSON)


class _Telling:
    """A stream in the making."""

    def __init__(self, steps: AsyncIterator[Step]) -> None:
        self._steps = steps
        self._record = record()
        self._ended = False

    async def line(self) -> bytes:
        """The next line, b"" when there are no more; raises HyperLlamaError."""
        try:
            return line(await anext(self._steps))
        except StopAsyncIteration:
            return b""
        except RepositoryNotFoundError as failure:
            log.info("not found on the hub", extra=fields(model=self._record.model, error=str(failure)))
            # Ollama's words without a word more: its CLI compares them.
            raise PullFailedError("pull model manifest: file does not exist") from failure

    async def line_or_error(self) -> bytes:
        """Like `line`, but a failure is the last line: the status has been sent."""
        if self._ended:
            return b""
        try:
            return await self.line()
        except Exception as failure:  # noqa: BLE001  # told and logged there
            text, _ = broken_off(failure, self._record)
        self._ended = True
        return ollama_lines.error_line(text)
