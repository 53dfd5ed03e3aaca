"""Every failure the daemon can tell somebody about, as one tree.

Each class carries a stable code, the HTTP status it becomes and, per instance, a sentence (what happened, to what)
and a hint (what to try).  The dialects turn these into replies; nothing here knows HTTP beyond the number.
"""

from __future__ import annotations

import math
from typing import ClassVar


class HyperLlamaError(Exception):
    """A failure with a code for programs, a sentence for people and a hint for what to do next."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retry_after: int | None = None  # whole seconds after which the same may succeed, as HTTP's Retry-After has it

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class BadRequestError(HyperLlamaError):
    """The client sent something that cannot be understood."""

    code = "bad_request"
    status = 400


class InvalidNameError(BadRequestError):
    """A text that is no model name; dialects word it per route, so `name` keeps the text as sent."""

    code = "invalid_name"

    def __init__(self, name: str) -> None:
        super().__init__("invalid model name", hint="a name looks like llama3.2:3b or hf.co/org/repo:tag")
        self.name = name


class UnsupportedError(BadRequestError):
    """The model or its engine cannot do what was asked; the sentence names what can."""

    code = "unsupported"


class ModelNotFoundError(HyperLlamaError):
    """No model of that name is in the store; dialects word it per route, so `name` keeps the text as sent."""

    code = "model_not_found"
    status = 404

    def __init__(self, name: str) -> None:
        super().__init__(f"model '{name}' not found", hint="`hyperllamactl list` shows the models that are here")
        self.name = name


class NoEngineError(HyperLlamaError):
    """No installed engine can run the model on this machine; the hint names the alternatives."""

    code = "no_engine"
    status = 500


class NoGpuError(NoEngineError):
    """The model runs on a GPU, and there is none that can be used now, though there should be."""

    code = "no_gpu"
    status = 503


class LoadFailedError(HyperLlamaError):
    """The engine could not be started with this model."""

    code = "load_failed"
    status = 500


class LoadTimeoutError(LoadFailedError):
    """The engine was started but was not ready in time."""

    code = "load_timeout"


class EngineDiedError(HyperLlamaError):
    """The engine ended while it was answering."""

    code = "engine_died"
    status = 500


class CutShortError(EngineDiedError):
    """The answer was ended on purpose: the model was unloaded at once, or the server is shutting down."""

    code = "cut_short"


class EngineRefusedError(HyperLlamaError):
    """The engine answered with an error of its own; `status` is the one it gave."""

    code = "engine_refused"

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status  # type: ignore[misc]  # the engine's own status replaces the class's


class BusyError(HyperLlamaError):
    """Too many requests wait already."""

    code = "busy"
    status = 503

    def __init__(self, *, retry_after: float | None = None) -> None:
        """`retry_after`: seconds until a request would be served, as far as that is known."""
        # Ollama's own words, two spaces included: clients match them.
        super().__init__("server busy, please try again.  maximum pending requests exceeded")
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))


class NoRoomError(HyperLlamaError):
    """The model does not fit into the memory there is, whoever else leaves; the sentence has the numbers."""

    code = "no_room"
    status = 503


class UnauthorizedError(HyperLlamaError):
    """The client showed no API key, or one that is not known."""

    code = "unauthorized"
    status = 401


class NoSuchKeyError(HyperLlamaError):
    """No API key of that name."""

    code = "no_such_key"
    status = 404


class TooManyRequestsError(HyperLlamaError):
    """One client asks for more than its share; `of` is "requests" or "tokens"."""

    code = "too_many_requests"
    status = 429

    def __init__(self, what: str, of: str, wait: float) -> None:
        """`wait`: seconds until the same request may succeed."""
        self.of = of
        self.retry_after = max(1, math.ceil(wait))  # whole seconds, as HTTP has it
        super().__init__(f"this API key has asked for {what}", hint=f"try again in {self.retry_after} s")


class ClosingError(HyperLlamaError):
    """The daemon is shutting down."""

    code = "closing"
    status = 503

    def __init__(self) -> None:
        super().__init__("the server is shutting down", hint="try again in a moment")


class NotPermittedError(HyperLlamaError):
    """The caller of the admin socket may read but not change."""

    code = "not_permitted"
    status = 403


class InstallFailedError(HyperLlamaError):
    """An engine could not be installed; the old one, if any, is untouched."""

    code = "install_failed"
    status = 500


class StoreError(HyperLlamaError):
    """The directory of the models cannot be read or written."""

    code = "store"


class DiskFullError(StoreError):
    """There is not enough room; the sentence says how much is needed, how much is free, and where."""

    code = "disk_full"
    status = 507


class InUseError(HyperLlamaError):
    """What should be removed or replaced belongs to somebody else, or is being worked on."""

    code = "in_use"
    status = 409


class PullFailedError(HyperLlamaError):
    """A model could not be fetched; what arrived is kept, and the next pull goes on from there."""

    code = "pull_failed"


class RepositoryNotFoundError(PullFailedError):
    """The hub has no such repository or variant, or will not admit it; Ollama says "file does not exist"."""

    code = "repository_not_found"


class UnknownShortNameError(RepositoryNotFoundError):
    """A short name that the catalogue does not have; `nearest` are names it does have."""

    code = "unknown_short_name"

    def __init__(self, message: str, *, hint: str, nearest: tuple[str, ...]) -> None:
        super().__init__(message, hint=hint)
        self.nearest = nearest


class ConfigError(HyperLlamaError):
    """A configuration file is wrong: the sentence gives file, key, what was found and what was expected."""

    code = "config"
