"""What the native routes answer: one Struct per reply, its keys in wire order.

A field with a default is left out when it holds that default (Go's omitempty); a field without one is always there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hyperllamad.front import gojson


class _Reply(msgspec.Struct, omit_defaults=True):
    def encode(self) -> bytes:
        return gojson.encode(self)


class ToolFunction(_Reply, kw_only=True):
    """`arguments` is an object, never a text."""

    index: int
    name: str
    arguments: dict[str, Any]


class ToolCall(_Reply, kw_only=True):
    id: str = ""
    function: ToolFunction


class Alternative(_Reply, kw_only=True):
    """A token the model might have taken."""

    token: str
    logprob: msgspec.Raw
    bytes: list[int] = []


class Logprob(_Reply, kw_only=True):
    """A token the model took, with the ones it might have taken."""

    token: str
    logprob: msgspec.Raw
    bytes: list[int] = []
    top_logprobs: list[Alternative] = []


class Message(_Reply, kw_only=True):
    role: str
    content: str
    thinking: str = ""
    tool_calls: list[ToolCall] = []


class DebugInfo(_Reply, kw_only=True):
    rendered_template: str
    image_count: int = 0


class ChatReply(_Reply, kw_only=True):
    """One line of /api/chat, or all of it; durations are nanoseconds."""

    model: str
    created_at: str
    message: Message
    done: bool
    done_reason: str = ""
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")
    logprobs: list[Logprob] = []
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


class GenerateReply(_Reply, kw_only=True):
    """One line of /api/generate, or all of it; durations are nanoseconds."""

    model: str
    created_at: str
    response: str
    thinking: str = ""
    done: bool
    done_reason: str = ""
    context: list[int] = []
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    tool_calls: list[ToolCall] = []
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")
    logprobs: list[Logprob] = []


class Details(_Reply, kw_only=True):
    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str
    context_length: int = 0
    embedding_length: int = 0


class TagsItem(_Reply, kw_only=True):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    capabilities: list[str] = []


class TagsReply(_Reply, kw_only=True):
    """GET /api/tags."""

    models: list[TagsItem]


class PsItem(_Reply, kw_only=True):
    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


class PsReply(_Reply, kw_only=True):
    """GET /api/ps."""

    models: list[PsItem]


class Tensor(_Reply, kw_only=True):
    name: str
    type: str
    shape: list[int]


class ShowReply(_Reply, kw_only=True):
    """POST /api/show; `model_info` holds GGUF-style keys."""

    license: str = ""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    details: Details
    messages: list[Message] = []
    model_info: dict[str, Any]
    tensors: list[Tensor] = []
    capabilities: list[str] = []
    modified_at: str
