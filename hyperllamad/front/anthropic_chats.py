"""Requests of Anthropic turned into chats.  Pure; raises BadRequestError, in Ollama's words where it has any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from hyperllamad.core.errors import BadRequestError
from hyperllamad.core.models import Capability, Model
from hyperllamad.front.anthropic_requests import Message, MessagesRequest
from hyperllamad.front.chat_body import Chat, joined
from hyperllamad.front.compat_body import BASE64, text_of
from hyperllamad.front.thinking import Think

Block = dict[str, Any]
_EFFORTS: dict[str, Think] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "max"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def of_message(request: MessagesRequest) -> Chat:
    """The chat of a /v1/messages request; the order of the checks is Ollama's."""
    if not request.model:
        raise BadRequestError("model is required")
    if request.max_tokens <= 0:
        raise BadRequestError("max_tokens is required and must be positive")
    return _chat(request)


def to_count(request: MessagesRequest) -> Chat:
    """The chat of a /v1/messages/count_tokens request, which has no limit."""
    if not request.model:
        raise BadRequestError("model is required")
    return _chat(request)


def for_model(chat: Chat, model: Model) -> Chat:
    """A model that cannot think is not asked to: clients of this API switch thinking on for every model."""
    return chat if Capability.THINKING in model.capabilities else replace(chat, think=None)


def _chat(request: MessagesRequest) -> Chat:
    if not request.messages:
        raise BadRequestError("messages is required")
    said = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "num_predict": request.max_tokens or None,
        "stop": request.stop_sequences or None,
    }
    tools = _tools(request.tools)
    parallel = False if request.tool_choice.get("disable_parallel_tool_use") is True else None
    return Chat(
        messages=[*_system(request.system), *(made for message in request.messages for made in _messages(message))],
        options={name: value for name, value in said.items() if value is not None},
        think=_think(request),
        tools=tools,
        tool_choice=_tool_choice(request.tool_choice),
        parallel_tool_calls=parallel if tools else None,
    )


def _think(request: MessagesRequest) -> Think:
    wanted = request.thinking.get("type")
    if wanted in ("enabled", "disabled"):
        return bool(wanted == "enabled")
    return _EFFORTS.get(request.output_config.get("effort", "")) if wanted is None else None


def _tool_choice(choice: dict[str, Any]) -> Any:
    """In OpenAI's form."""
    wanted = choice.get("type")
    if wanted is None:
        return None
    if isinstance(wanted, str) and wanted in _CHOICES:
        return _CHOICES[wanted]
    if wanted == "tool" and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice["name"]}}
    raise BadRequestError("tool_choice must be of type auto, any, none, or tool with a name")


def _tools(given: Sequence[Block]) -> list[Block]:
    """Those a client runs itself.  Tools of Anthropic's own servers come without a schema and are left out."""
    made = []
    for tool in given:
        if isinstance(tool.get("input_schema"), dict) and isinstance(tool.get("name"), str):
            function = {"name": tool["name"], "parameters": tool["input_schema"]}
            if isinstance(tool.get("description"), str):
                function["description"] = tool["description"]
            made.append({"type": "function", "function": function})
    return made


def _system(system: Any) -> list[Block]:
    """A text, or text blocks that are joined without anything between."""
    blocks = system if isinstance(system, list) else []
    texts = [block["text"] for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str)]
    text = system if isinstance(system, str) else "".join(texts)
    return [{"role": "system", "content": text}] if text else []


def _messages(message: Message) -> list[Block]:
    """One message as one or more: the results of tools come before what else the user says."""
    content = message.content
    if content is None:
        raise BadRequestError("unexpected end of JSON input")
    if isinstance(content, str):
        return [{"role": message.role, "content": content}]
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise BadRequestError("content must be a string or a list of blocks")
    if message.role == "assistant":
        return [_said(content)]
    results = [_result(block) for block in content if block.get("type") == "tool_result"]
    parts = _parts(content)
    return [*results, {"role": message.role, "content": joined(parts)}] if parts or not results else results


def _said(blocks: Sequence[Block]) -> Block:
    made: Block = {"role": "assistant", "content": joined(_parts(blocks))}
    thoughts = [text_of(block, "thinking") for block in blocks if block.get("type") == "thinking"]
    if thoughts:
        made["reasoning_content"] = "".join(thoughts)
    calls = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    return made | ({"tool_calls": calls} if calls else {})


def _call(block: Block) -> Block:
    arguments = msgspec.json.encode(block.get("input") or {}).decode()
    function = {"name": text_of(block, "name"), "arguments": arguments}
    return {"id": text_of(block, "id"), "type": "function", "function": function}


def _result(block: Block) -> Block:
    content = block.get("content")
    blocks = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    text = content if isinstance(content, str) else joined(_parts(blocks))
    return {"role": "tool", "tool_call_id": text_of(block, "tool_use_id"), "content": text}


def _parts(blocks: Sequence[Block]) -> list[Block]:
    """Texts and images; blocks of other types say nothing to a model here."""
    made: list[Block] = []
    for block in blocks:
        if block.get("type") == "text":
            made.append({"type": "text", "text": text_of(block, "text")})
        elif block.get("type") == "image":
            made.append(_image(block.get("source")))
    return made


def _image(source: Any) -> Block:
    wanted = source.get("type") if isinstance(source, dict) else None
    if wanted != "base64":
        raise BadRequestError(f"invalid image source type: {wanted}. Only base64 images are supported.")
    data, mime = text_of(source, "data"), text_of(source, "media_type") or "image/jpeg"
    if not BASE64.fullmatch(data) or not mime.startswith("image/"):
        raise BadRequestError("invalid image input")
    return {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{data}"}}
