"""What clients send to the native routes: one Struct and one `Shape` per request, beside each other.

Field names, types and defaults are Ollama's (api/types.go); the texts of wrong ones come from `body`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hyperllamad.core.errors import BadRequestError
from hyperllamad.front.shapes import (
    Reading,
    Shape,
    anything,
    boolean,
    image,
    integer,
    keep_alive,
    listing,
    mapping,
    own_parser,
    string,
)
from hyperllamad.front.thinking import Think


class ToolFunction(msgspec.Struct, kw_only=True):
    """The call inside a ToolCall; `arguments` keeps the order of its keys."""

    index: int = 0
    name: str = ""
    arguments: dict[str, Any] = {}


class ToolCall(msgspec.Struct, kw_only=True):
    """A call the model made earlier."""

    id: str = ""
    function: ToolFunction = msgspec.field(default_factory=ToolFunction)


class Message(msgspec.Struct, kw_only=True):
    """A message of a chat; `images` are base64 texts."""

    role: str = ""
    content: str = ""
    thinking: str = ""
    images: list[str] = []
    tool_calls: list[ToolCall] = []
    tool_name: str = ""
    tool_call_id: str = ""


class Asked(msgspec.Struct, kw_only=True):
    """What generate and chat have in common; `keep_alive` is seconds (inf = for ever), None = not said."""

    model: str = ""
    name: str = ""
    stream: bool = True
    format: Any = None
    keep_alive: float | None = None
    options: dict[str, Any] = {}
    think: Think = None
    truncate: bool = True
    shift: bool = True
    logprobs: bool = False
    top_logprobs: int = 0
    debug_render_only: bool = False

    @property
    def asked_model(self) -> str:
        """The name as the client wrote it; `name` is taken wherever `model` is."""
        return self.model or self.name


class ChatRequest(Asked, kw_only=True):
    """POST /api/chat."""

    messages: list[Message] = []
    tools: list[dict[str, Any]] = []


class GenerateRequest(Asked, kw_only=True):
    """POST /api/generate."""

    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[int] = []
    raw: bool = False
    images: list[str] = []


class ShowRequest(msgspec.Struct, kw_only=True):
    """POST /api/show; system, template and options are laid over what the model has."""

    model: str = ""
    name: str = ""
    verbose: bool = False
    system: str = ""
    template: str = ""
    options: dict[str, Any] = {}


# -- readers of single types -------------------------------------------------------------------------------------------


def think(value: Any, _: Reading) -> Think:
    if isinstance(value, str) and value not in {"high", "medium", "low", "max"}:
        shown = msgspec.json.encode(value).decode()
        raise BadRequestError(f'invalid think value: {shown} (must be "high", "medium", "low", "max", true, or false)')
    if not isinstance(value, (bool, str)):
        raise BadRequestError('think must be a boolean or string ("high", "medium", "low", "max", true, or false)')
    return value


def role(value: Any, reading: Reading) -> str:
    return string(value, reading).lower()


def ordered_map(value: Any, _: Reading) -> dict[str, Any]:
    """Tool-call arguments and tool properties: Ollama's map type refuses everything else in these words."""
    if not isinstance(value, dict):
        raise BadRequestError("Value looks like object, but can't find closing '}' symbol")
    return value


_TOOL: Shape[dict[str, Any]] = Shape(
    "Tool",
    dict,
    {
        "type": string,
        "function": Shape(
            "ToolFunction",
            dict,
            {
                "name": string,
                "description": string,
                "parameters": Shape(
                    "ToolFunctionParameters",
                    dict,
                    {"type": string, "required": listing("[]string", string), "properties": ordered_map},
                ),
            },
        ),
    },
)


def tool(value: Any, reading: Reading) -> dict[str, Any]:
    """A tool's description, checked, then kept whole: engines know more of JSON Schema than Ollama does."""
    _TOOL(value, reading)
    return value if isinstance(value, dict) else {}


# -- shapes ------------------------------------------------------------------------------------------------------------

_IMAGES = listing("[]api.ImageData", image)

_TOOL_CALL = Shape(
    "ToolCall",
    ToolCall,
    {
        "id": string,
        "function": Shape(
            "ToolCallFunction",
            ToolFunction,
            {"index": integer, "name": string, "arguments": ordered_map},
        ),
    },
)

MESSAGE = Shape(
    "Alias",  # what Ollama's own UnmarshalJSON of a message decodes into
    Message,
    {
        "role": role,
        "content": string,
        "thinking": string,
        "images": _IMAGES,
        "tool_calls": listing("[]api.ToolCall", _TOOL_CALL),
        "tool_name": string,
        "tool_call_id": string,
    },
)

_ASKED = {
    "model": string,
    "name": string,
    "stream": boolean,
    "format": anything,
    "keep_alive": keep_alive,
    "options": mapping,
    "think": think,
    "truncate": boolean,
    "shift": boolean,
    "logprobs": boolean,
    "top_logprobs": integer,
    "_debug_render_only": boolean,
}

CHAT = Shape(
    "ChatRequest",
    ChatRequest,
    {
        **_ASKED,
        "messages": listing("[]api.Message", own_parser(MESSAGE)),
        "tools": listing("api.Tools", tool),
    },
)

GENERATE = Shape(
    "GenerateRequest",
    GenerateRequest,
    {
        **_ASKED,
        "prompt": string,
        "suffix": string,
        "system": string,
        "template": string,
        "context": listing("[]int", integer),
        "raw": boolean,
        "images": _IMAGES,
    },
)

SHOW = Shape(
    "ShowRequest",
    ShowRequest,
    {
        "model": string,
        "name": string,
        "verbose": boolean,
        "system": string,
        "template": string,
        "options": mapping,
    },
)
