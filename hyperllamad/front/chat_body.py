"""A chat as any of the compatible dialects means it, and the OpenAI body an engine gets for it.  Pure.

`options` bear Ollama's names, because that is how a model states its own parameters (core.models.Model.parameters)
and one list has to be laid over the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hyperllamad.core.errors import BadRequestError, UnsupportedError
from hyperllamad.core.models import Capability, Model
from hyperllamad.front import ollama_options, thinking
from hyperllamad.front.thinking import Think

Message = dict[str, Any]  # OpenAI's form
MOST_TOP_LOGPROBS = 20

# Answers are always streamed from the engine, also when the client wants one whole: only so is the time to the first
# token known for every engine, and there is one path to keep right.
STREAMING = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What is asked of a model."""

    messages: list[Message]
    options: Mapping[str, Any] = field(default_factory=dict)
    think: Think = None
    tools: list[dict[str, Any]] = field(default_factory=list)  # OpenAI's form; each a function with a name
    tool_choice: Any = None  # OpenAI's form; None = the model decides
    parallel_tool_calls: bool | None = None
    response_format: Mapping[str, Any] | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    logit_bias: Mapping[str, float] | None = None


def check(chat: Chat, model: Model, asked: str, verb: str = "chat") -> None:
    """Whether the model can do this, in Ollama's order and words; `asked` is the name as the client wrote it.

    Raises UnsupportedError.  Images are checked, too, which Ollama leaves to its engine and its status 500.
    """
    able = model.capabilities
    if chat.think and Capability.THINKING not in able:
        raise UnsupportedError(f'"{asked}" does not support thinking')
    if Capability.COMPLETION not in able:
        raise UnsupportedError(f'"{asked}" does not support {verb}')
    if chat.tools and chat.tool_choice != "none" and Capability.TOOLS not in able:
        raise UnsupportedError(f"{model.name.full} does not support tools")
    if Capability.VISION not in able and any(_has_image(message) for message in chat.messages):
        raise UnsupportedError(f'"{asked}" does not support images', hint="ask a model that has the capability vision")


def _has_image(message: Message) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(part["type"] == "image_url" for part in content)


def build(chat: Chat, model: Model, context: int) -> dict[str, Any]:
    """The body for /v1/chat/completions, for an engine that runs with `context` tokens; raises BadRequestError."""
    options = ollama_options.merge(model.parameters, chat.options)
    body = ollama_options.sampling(options)
    if (limit := ollama_options.max_tokens(options, context, zero=1)) is not None:
        body["max_tokens"] = limit
    if chat.response_format:
        body["response_format"] = chat.response_format
    if chat.logprobs:
        body |= {"logprobs": True, "top_logprobs": chat.top_logprobs}
    if chat.logit_bias:
        body["logit_bias"] = chat.logit_bias
    if Capability.THINKING in model.capabilities:
        body |= thinking.arguments(chat.think)
    return body | _tools(chat) | STREAMING | {"messages": opened(model, chat.messages)}


def _tools(chat: Chat) -> dict[str, Any]:
    """Tools and the choice among them.  A choice of one is that one tool, required: every engine understands this."""
    tools, choice = chat.tools, chat.tool_choice
    if not tools or choice == "none":
        return {}
    body: dict[str, Any] = {"tools": tools}
    if isinstance(choice, str) and choice != "auto":
        body["tool_choice"] = choice
    elif isinstance(choice, dict):
        name = choice["function"]["name"]
        chosen = [tool for tool in tools if tool["function"]["name"] == name]
        if not chosen:
            raise BadRequestError(f"tool_choice names {name!r}, which is not among the tools")
        body |= {"tools": chosen, "tool_choice": "required"}
    if chat.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = chat.parallel_tool_calls
    return body


def joined(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts that are all text are one text, because not every template reads parts; engines join them so, too."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def opened(model: Model, messages: list[Message]) -> list[Message]:
    """What a model's own definition says first, then the conversation; a system message of the client's wins."""
    said: list[Message] = [{"role": turn.role, "content": turn.content} for turn in model.messages]
    if model.system and (not messages or messages[0]["role"] != "system"):
        said.insert(0, {"role": "system", "content": model.system})
    return [*said, *messages]
