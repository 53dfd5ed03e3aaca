"""Who a request comes from, and whether it may come in: API keys at the door, limits where an engine is asked for.

With keys required every route wants one, but for those a probe or a client asks before it knows of keys; they say
nothing of models or of other clients.  What each key has under way outlives a reload, and so belongs to the services;
the counting is core/quota.py's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from quart import request

from hyperllamad.core.errors import TooManyRequestsError, UnauthorizedError
from hyperllamad.core.quota import Quota
from hyperllamad.front import request_scope
from hyperllamad.front.request_scope import Record
from hyperllamad.keys import ApiKey, KeyRing

OPEN = frozenset({"/", "/health", "/api/version", "/openapi.json"})  # asked without a key


class Doorkeeper:
    """Looks at every request before its route does."""

    def __init__(self, keys: KeyRing, quotas: defaultdict[str, Quota]) -> None:
        self._keys = keys
        self._quotas = quotas

    async def look(self) -> None:
        """For Quart.before_request.  Raises UnauthorizedError."""
        if request.path in OPEN:
            return
        told, shown = request_scope.record(), _shown()
        if (key := self._keys.find(shown)) is None:
            told.headers["WWW-Authenticate"] = 'Bearer realm="hyperllama"'
            raise _refusal(shown)
        told.client, told.weight = key.name, key.weight
        told.admit = lambda: self._admit(key, told)

    def _admit(self, key: ApiKey, told: Record) -> Callable[[], None]:
        """The request will use an engine; what comes back is for its end.  Raises TooManyRequestsError."""
        quota = self._quotas[key.name]
        try:
            number = quota.enter(key.limits, time.monotonic())
        except TooManyRequestsError as refusal:
            told.headers["Retry-After"] = str(refusal.retry_after)
            raise
        return lambda: quota.leave(number, told.prompt_tokens + told.completion_tokens, time.monotonic())


def _shown() -> Sequence[str]:
    """The keys a client shows: a few clients send both headers, one of them with a word that means nothing."""
    scheme, _, bearer = request.headers.get("Authorization", "").strip().partition(" ")
    found = [bearer.strip()] if scheme.lower() == "bearer" else []
    found.append(request.headers.get("x-api-key", "").strip())
    return [text for text in found if text]


def _refusal(shown: Sequence[str]) -> UnauthorizedError:
    if shown:
        return UnauthorizedError("this API key is not known here", hint="`hyperllamactl key list` shows which are")
    hint = "send it as `Authorization: Bearer KEY` or `x-api-key: KEY`"
    return UnauthorizedError("this server asks for an API key", hint=hint)
