"""Model names: Ollama's grammar, parsed and printed.  Knows nothing of what exists."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hyperllamad.core.errors import InvalidNameError

DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG = "registry.ollama.ai", "library", "latest"

# Lengths and characters of each part: Ollama's types/model/name.go, seen on its wire.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, slots=True)
class ModelName:
    """`[scheme://][host[:port]/][namespace/]model[:tag]`, with Ollama's defaults filled in."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Read a name as a client wrote it; raises InvalidNameError with that text."""
        rest = text.strip()
        if "://" in rest:
            rest = rest.split("://", 1)[1]
        *path, last = rest.split("/")
        model, colon, tag = last.partition(":")
        if colon and not tag:
            raise InvalidNameError(text)
        if len(path) > 2:
            raise InvalidNameError(text)
        namespace = path.pop() if path else DEFAULT_NAMESPACE
        host = path.pop() if path else DEFAULT_HOST
        tag = tag or DEFAULT_TAG
        known = _HOST.fullmatch(host) and _NAMESPACE.fullmatch(namespace)
        if known and _PART.fullmatch(model) and _PART.fullmatch(tag):
            return cls(host, namespace, model, tag)
        raise InvalidNameError(text)

    @property
    def key(self) -> str:
        """What two names of the same model have in common: comparison ignores case."""
        return self.full.casefold()

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def short(self) -> str:
        """As lists show it: default host and namespace dropped, the tag always there."""
        if self.host != DEFAULT_HOST:
            return self.full
        if self.namespace != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    def __str__(self) -> str:
        return self.short
