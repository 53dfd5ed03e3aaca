"""What must hold before an engine is asked, in Ollama's order and Ollama's words (spec 2.1, 5.4, 5.9, 6).

Every function raises; none returns a verdict.
"""

from __future__ import annotations

from hyperllamad.core.errors import BadRequestError, HyperLlamaError, UnsupportedError
from hyperllamad.core.models import Capability, Model
from hyperllamad.front import gotemplate
from hyperllamad.front.finding import find as find  # noqa: PLC0414  # one of the checks, for the routes
from hyperllamad.front.ollama_requests import Asked, ChatRequest, GenerateRequest


class BadTemplateError(HyperLlamaError):
    """The `template` of a request is none; Ollama answers 500 to it, not 400."""

    code = "bad_template"


REMOTE_DETAILS = "remote model details are unavailable"


def top_logprobs(request: Asked) -> None:
    if not 0 <= request.top_logprobs <= 20:
        raise BadRequestError("top_logprobs must be between 0 and 20")


def raw_conflicts(request: ChatRequest | GenerateRequest) -> None:
    if not isinstance(request, GenerateRequest) or not request.raw:
        return
    if request.template or request.system or request.context:
        raise BadRequestError("raw mode does not support template, system, or context")


def template(request: ChatRequest | GenerateRequest) -> None:
    """One that is broken is told, although none is used: whoever sends it should not look for the fault elsewhere."""
    if isinstance(request, GenerateRequest) and (fault := gotemplate.fault(request.template)):
        raise BadTemplateError(fault)


def capabilities(request: ChatRequest | GenerateRequest, model: Model) -> None:
    """Thinking, then the route itself, then the rest; the client's own spelling of the name in the first two."""
    name, able = request.asked_model, model.capabilities
    if request.think and Capability.THINKING not in able:
        raise UnsupportedError(f'"{name}" does not support thinking')
    if Capability.COMPLETION not in able:
        verb = "chat" if isinstance(request, ChatRequest) else "generate"
        raise UnsupportedError(f'"{name}" does not support {verb}')
    wanted = []
    if isinstance(request, ChatRequest) and request.tools:
        wanted.append(Capability.TOOLS)
    if isinstance(request, GenerateRequest) and request.suffix:
        wanted.append(Capability.INSERT)
    if missing := [capability.value for capability in wanted if capability not in able]:
        raise UnsupportedError(f"{model.name.full} does not support {chr(10).join(missing)}")
