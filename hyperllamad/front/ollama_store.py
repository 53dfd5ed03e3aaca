"""The native routes that change what is here: copy, delete, blobs, create, pull; and push, which is refused.

Thin: store/library.py does the work.  What stands here is Ollama's order of checks and its words (spec 2.8 to 2.11, 6
and 8).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine

from quart import Blueprint, Response

from hyperllamad.core.errors import (
    BadRequestError,
    HyperLlamaError,
    InvalidNameError,
    ModelNotFoundError,
    UnsupportedError,
)
from hyperllamad.core.names import ModelName
from hyperllamad.front import body, gotemplate, ollama_progress, upload
from hyperllamad.front.finding import NotFoundError
from hyperllamad.front.ollama_store_requests import COPY, CREATE, DELETE, PULL, PUSH, CreateRequest
from hyperllamad.front.ports import Services
from hyperllamad.front.request_scope import held, record
from hyperllamad.store.pull import MANIFEST
from hyperllamad.store.steps import Step
from hyperllamad.store.variants import check


class OllamaStoreRoutes:
    """The routes."""

    def __init__(self, services: Services) -> None:
        self._library = services.library

    def blueprint(self) -> Blueprint:
        routes = Blueprint("ollama_store", __name__)
        routes.add_url_rule("/api/copy", view_func=self.copy, methods=["POST"])
        routes.add_url_rule("/api/delete", view_func=self.delete, methods=["DELETE"])
        routes.add_url_rule("/api/create", view_func=self.create, methods=["POST"])
        routes.add_url_rule("/api/pull", view_func=self.pull, methods=["POST"])
        routes.add_url_rule("/api/push", view_func=self.push, methods=["POST"])
        blob = f"{upload.PREFIX}<digest>"
        routes.add_url_rule(blob, "has_blob", view_func=self.has_blob, methods=["HEAD"])
        routes.add_url_rule(blob, "receive_blob", view_func=self.receive_blob, methods=["POST"])
        return routes

    async def copy(self) -> Response:
        asked = await body.receive(COPY)
        record().model = asked.source
        try:
            await self._library.copy(asked.source, asked.destination)
        except ModelNotFoundError as failure:
            raise NotFoundError(f'model "{asked.source}" not found') from failure
        return _empty(200)

    async def delete(self) -> Response:
        """A running copy stays until its time is over, as in Ollama."""
        asked = await body.receive(DELETE)
        if not asked.asked_model:
            raise BadRequestError("model is required")
        record().model = asked.asked_model
        try:
            await self._library.delete(asked.asked_model)
        except InvalidNameError as failure:
            raise BadRequestError(f'name "{asked.asked_model}" is invalid') from failure
        return _empty(200)

    async def has_blob(self, digest: str) -> Response:
        if self._library.blobs.has(digest):
            return _empty(200)
        raise NotFoundError(f'blob "{digest}" not found')

    async def receive_blob(self, digest: str) -> Response:
        pieces = upload.pieces()
        if await self._library.receive(digest, pieces):
            return _empty(201)
        async for _ in pieces:  # a client that is still sending would not hear the answer
            pass
        return _empty(200)

    async def create(self) -> Response:
        asked = await body.receive(CREATE)
        record().model = ModelName.parse(asked.asked_model).short
        return await ollama_progress.answer(self._creating(asked), stream=asked.stream)

    async def _creating(self, asked: CreateRequest) -> AsyncIterator[Step]:
        wanted = asked.wanted()
        check(wanted)
        if fault := gotemplate.fault(wanted.template):
            raise BadRequestError(f"template error: {fault}")
        creation = _Creation()
        # Ended with the request, and not with this generator, which nobody may close when the client leaves.
        held().callback(creation.begin(self._library.create(wanted, on_step=creation.tell)))
        async for step in creation.steps():
            yield step

    async def pull(self) -> Response:
        asked = await body.receive(PULL)
        record().model = ModelName.parse(asked.asked_model).short
        return await ollama_progress.answer(self._pulling(asked.asked_model), stream=asked.stream)

    async def _pulling(self, name: str) -> AsyncIterator[Step]:
        stack = held()
        try:
            watch = await self._library.pull(name)
        except HyperLlamaError:
            yield MANIFEST  # Ollama has said this before it looks
            raise
        stack.callback(watch.leave)  # the last client to leave ends the download
        async for step in watch:
            yield step

    async def push(self) -> Response:
        asked = await body.receive(PUSH)
        if not asked.asked_model:
            raise BadRequestError("model is required")
        return await ollama_progress.answer(_refusing_to_push(), stream=asked.stream)


async def _refusing_to_push() -> AsyncIterator[Step]:
    yield Step("retrieving manifest")
    yield Step("couldn't retrieve manifest")
    hint = "to publish a model, upload its files with the tools of a model hub"
    raise UnsupportedError("push is not supported: models come here from hubs and are not sent to any", hint=hint)


class _Creation:
    """A create under way in a task of its own, and what it has said."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[Step | Exception | None] = asyncio.Queue()
        self.tell = self._said.put_nowait

    def begin(self, work: Coroutine[None, None, None]) -> Callable[[], object]:
        """Start `work`; what comes back ends it, and does nothing when it has ended."""

        async def run() -> None:
            try:
                await work
            except Exception as failure:  # noqa: BLE001  # raised again where the steps are read
                self.tell(failure)
            else:
                self.tell(None)

        return asyncio.create_task(run()).cancel

    async def steps(self) -> AsyncIterator[Step]:
        """Everything that is said, until the work ends; raises what it raised."""
        while (said := await self._said.get()) is not None:
            if isinstance(said, Exception):
                raise said
            yield said


def _empty(status: int) -> Response:
    response = Response(b"", status)
    del response.headers["Content-Type"]  # there is no body that could have a type
    return response
