"""Puts one engine to sleep and wakes it, and makes sure that it is still the same afterwards.

An engine can come back with garbage for weights and be in good health by its own account.  So it answers one short
question before it ever sleeps, and the same question after every wake: another answer, and it is not used any more.
Talks to the engine over its socket; must not know the fleet, nor what follows from a failure.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from hyperllamad.core.errors import EngineDiedError
from hyperllamad.core.models import Kind
from hyperllamad.supervision import memory
from hyperllamad.supervision.plan import Plan
from hyperllamad.supervision.upstream import BASE, Connector, open_session

log = logging.getLogger("hyperllamad.supervision")

ANSWER_WITHIN = 30.0  # seconds for the question
SWITCH_WITHIN = 60.0  # seconds to fall asleep or to wake
SPARE_MEMORY = 1.5  # pinned ahead is only what leaves the host half as much again
QUESTION = {"prompt": "One, two, three, four, five, six,", "max_tokens": 4, "temperature": 0.0, "seed": 1}


class Slumber:
    """Of one engine that serves.  begin() first."""

    def __init__(self, plan: Plan, socket: str) -> None:
        self.levels = plan.engine.sleep_levels(plan.model, plan.settings, plan.home)
        self._plan = plan
        self._socket = socket
        self._answer: str | None = None

    async def begin(self) -> None:
        """Hear what it answers now, and have it prepare for sleep in its own time; nothing where it never sleeps.

        Raises EngineDiedError when it does not answer.
        """
        if not self.levels:
            return
        self._answer = await self._ask()
        wanted = self._plan.engine.probe.before_sleep
        if wanted is not None and memory.read()[1] > SPARE_MEMORY * self._plan.model.size:
            try:
                await self._post(wanted[0], wanted[1], ANSWER_WITHIN)
            except EngineDiedError as error:
                log.info("the first sleep will be slow: %s", error)

    async def sleep(self, level: int) -> None:
        """Raises EngineDiedError when it cannot."""
        if level not in self.levels or self._answer is None:
            raise self._failure(f"cannot sleep at level {level}")
        await self._post(self._plan.engine.probe.sleep.format(level=level), None, SWITCH_WITHIN)

    async def wake(self) -> None:
        """Raises EngineDiedError when it cannot, or is not what it was."""
        await self._post(self._plan.engine.probe.wake, None, SWITCH_WITHIN)
        answer = await self._ask()
        if answer != self._answer:
            log.error("woken, it answers %r instead of %r", answer, self._answer)
            raise self._failure("answers differently than before it slept: its weights are damaged")

    async def _ask(self) -> str:
        engine, model, settings = self._plan.engine, self._plan.model, self._plan.settings
        body = engine.body(Kind.COMPLETION, dict(QUESTION), model, settings)
        reply = await self._post(Kind.COMPLETION, body, ANSWER_WITHIN)
        try:
            return str(msgspec.json.decode(reply)["choices"][0]["text"])
        except (msgspec.DecodeError, LookupError, TypeError) as failure:
            raise self._failure(f"gives an answer that cannot be read: {reply[:200]!r}") from failure

    async def _post(self, path: str, body: Mapping[str, Any] | None, within: float) -> bytes:
        try:
            async with (
                open_session(Connector(self._socket)) as session,
                session.post(BASE + path, json=body, timeout=aiohttp.ClientTimeout(total=within)) as reply,
            ):
                content = await reply.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise self._failure(f"does not answer {path}: {str(failure) or type(failure).__name__}") from failure
        if reply.status != 200:
            raise self._failure(f"answers {path} with {reply.status}: {content[:200].decode(errors='replace')}")
        return content

    def _failure(self, what: str) -> EngineDiedError:
        return EngineDiedError(f"{self._plan.engine.title} {what}", hint="`hyperllamactl logs` shows what it wrote")
