"""What clients send to /v1/messages and /v1/messages/count_tokens, by Anthropic's names.

Fields that are not here (metadata, service_tier, cache_control inside of blocks, ...) are ignored, as by Ollama.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hyperllamad.front.compat_body import objects
from hyperllamad.front.shapes import (
    Shape,
    anything,
    boolean,
    integer,
    keep_alive,
    listing,
    mapping,
    number,
    string,
)


class Message(msgspec.Struct, kw_only=True):
    """`content` is a text or a list of blocks."""

    role: str = ""
    content: Any = None


class MessagesRequest(msgspec.Struct, kw_only=True):
    """None = not said."""

    model: str = ""
    max_tokens: int = 0
    messages: list[Message] = []
    system: Any = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] = []
    tools: list[dict[str, Any]] = []
    tool_choice: dict[str, Any] = {}
    thinking: dict[str, Any] = {}
    output_config: dict[str, Any] = {}
    keep_alive: float | None = None


MESSAGES = Shape(
    "MessagesRequest",
    MessagesRequest,
    {
        "model": string,
        "max_tokens": integer,
        "messages": listing(
            "[]anthropic.MessageParam",
            Shape("MessageParam", Message, {"role": string, "content": anything}, package="anthropic"),
        ),
        "system": anything,
        "stream": boolean,
        "temperature": number,
        "top_p": number,
        "top_k": integer,
        "stop_sequences": listing("[]string", string),
        "tools": objects("[]anthropic.Tool", "anthropic.Tool"),
        "tool_choice": mapping,
        "thinking": Shape(
            "ThinkingConfig", dict[str, Any], {"type": string, "budget_tokens": integer}, package="anthropic"
        ),
        "output_config": Shape("OutputConfig", dict[str, Any], {"effort": string}, package="anthropic"),
        "keep_alive": keep_alive,
    },
    package="anthropic",
)
