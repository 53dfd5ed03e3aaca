"""POST /api/chat and /api/generate up to the moment a model stands ready: Ollama's order of checks (spec 2.1).

What happens with the ready model is an `ollama_turn`.
"""

from __future__ import annotations

import logging
import time

from quart import Blueprint, Response

from hyperllamad.core.errors import BadRequestError, ModelNotFoundError
from hyperllamad.core.models import Model
from hyperllamad.front import body, fitting, ollama_checks, ollama_options, relay, replies
from hyperllamad.front.ollama_lines import ChatLines, GenerateLines, Lines
from hyperllamad.front.ollama_requests import CHAT, GENERATE
from hyperllamad.front.ollama_turn import Asked, ChatTurn, GenerateTurn, Turn
from hyperllamad.front.ports import Services, Upstream
from hyperllamad.front.request_scope import record
from hyperllamad.telemetry import fields

log = logging.getLogger(__name__)


class OllamaRoutes:
    """The two routes that run a model."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def blueprint(self) -> Blueprint:
        routes = Blueprint("ollama", __name__)
        routes.add_url_rule("/api/chat", view_func=self.chat, methods=["POST"])
        routes.add_url_rule("/api/generate", view_func=self.generate, methods=["POST"])
        return routes

    async def chat(self) -> Response:
        asked = await body.receive(CHAT)
        ollama_checks.top_logprobs(asked)
        if not asked.asked_model:
            raise BadRequestError("model is required")
        lines = ChatLines(asked.asked_model, asked.top_logprobs)
        return await self._serve(ChatTurn, asked, lines, empty=not asked.messages)

    async def generate(self) -> Response:
        asked = await body.receive(GENERATE)
        ollama_checks.top_logprobs(asked)
        if not asked.asked_model:
            raise ModelNotFoundError("")
        lines = GenerateLines(asked.asked_model, asked.top_logprobs)
        return await self._serve(GenerateTurn, asked, lines, empty=not asked.prompt)

    async def _serve(self, turn: type[Turn[Asked]], asked: Asked, lines: Lines, *, empty: bool) -> Response:
        """`empty`: nothing to say to the model, so the request is about loading or unloading it."""
        model = ollama_checks.find(self._services.catalog, asked.asked_model)
        record().model = model.name.short
        if empty and asked.keep_alive == 0:
            return self._unload(model, lines)
        ollama_checks.raw_conflicts(asked)
        ollama_checks.capabilities(asked, model)
        if unknown := ollama_options.unknown(asked.options):
            log.debug("options without a meaning are ignored", extra=fields(options=",".join(unknown)))
        options = ollama_options.merge(model.parameters, asked.options)
        wanted = options.get("num_ctx", 0)

        async def serve(upstream: Upstream) -> Response:
            ollama_checks.template(asked)
            fitting.note_context(upstream, wanted)
            return await turn(asked, model, options, upstream, lines, time.perf_counter_ns()).reply()

        with fitting.context_for(self._services, model, wanted):
            if empty:
                fitting.note_context(await relay.lease(self._services, model, asked.keep_alive), wanted)
                return replies.json(lines.bare("load"))
            return await relay.with_engine(self._services, model, asked.keep_alive, serve)

    def _unload(self, model: Model, lines: Lines) -> Response:
        """Ask the engine to stop once idle and say so at once, also when none runs."""
        self._services.supervisor.keep(model, 0.0)
        return replies.json(lines.bare("unload"))
