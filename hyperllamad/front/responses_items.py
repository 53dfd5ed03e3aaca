"""The input items and tools of the Responses API as messages and tools of a chat.  Pure; raises BadRequestError."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from hyperllamad.core.errors import BadRequestError
from hyperllamad.front import chat_body, openai_chats
from hyperllamad.front.compat_body import kind, text_of

Item = dict[str, Any]
_ROLES = {"developer": "system"}


def messages(given: str | Sequence[Any] | None) -> list[Item]:
    """A text is what the user says; None is nothing."""
    if given is None:
        return []
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    reading = _Reading()
    for index, item in enumerate(given):
        reading.add(index, item)
    return reading.messages


class _Reading:
    """Items are smaller than messages: thoughts and calls belong to the assistant's message beside them."""

    def __init__(self) -> None:
        self.messages: list[Item] = []
        self._thought = ""  # belongs to what the assistant says next
        self._readers: dict[str, Callable[[Item], None]] = {
            "message": self._message,
            "function_call": self._call,
            "function_call_output": self._output,
            "reasoning": self._reasoning,
            "web_search_call": lambda _: None,  # what it found stands in the answer that followed
        }

    def add(self, index: int, item: Any) -> None:
        if not isinstance(item, dict):
            raise BadRequestError(f"input[{index}]: input item must be an object")
        name = item.get("type") or ("message" if item.get("role") else None)
        if name is None:
            raise BadRequestError(f"input[{index}]: input item missing required 'type' field")
        reader = self._readers.get(name) if isinstance(name, str) else None
        if reader is None:
            raise BadRequestError(f"input[{index}]: unknown input item type: {msgspec.json.encode(name).decode()}")
        try:
            reader(item)
        except BadRequestError as found:
            raise BadRequestError(f"input[{index}]: {found.message}") from found

    def _message(self, item: Item) -> None:
        role = text_of(item, "role")
        made: Item = {"role": _ROLES.get(role, role), "content": _content(item.get("content"))}
        if role == "assistant":
            made |= self._taken()
        self.messages.append(made)

    def _call(self, item: Item) -> None:
        call = openai_chats.call_of(text_of(item, "call_id"), text_of(item, "name"), text_of(item, "arguments") or "{}")
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != "assistant" or self._thought:
            last = {"role": "assistant", "content": "", **self._taken()}
            self.messages.append(last)
        last.setdefault("tool_calls", []).append(call)

    def _output(self, item: Item) -> None:
        content = _content(item.get("output"))
        self.messages.append({"role": "tool", "content": content, "tool_call_id": text_of(item, "call_id")})

    def _reasoning(self, item: Item) -> None:
        summary = item.get("summary")
        parts = (
            [text_of(part, "text") for part in summary if isinstance(part, dict)] if isinstance(summary, list) else []
        )
        self._thought = text_of(item, "encrypted_content") or "\n".join(parts)

    def _taken(self) -> Item:
        thought, self._thought = self._thought, ""
        return {"reasoning_content": thought} if thought else {}


def _content(content: Any) -> str | list[Item]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequestError(f"invalid message content type: {kind(content)}")
    return chat_body.joined([_part(part) for part in content])


def _part(part: Any) -> Item:
    name = part.get("type") if isinstance(part, dict) else None
    if name in ("input_text", "output_text", "text"):
        return {"type": "text", "text": text_of(part, "text")}
    if name == "refusal":
        return {"type": "text", "text": text_of(part, "refusal")}
    if name == "input_image":
        return openai_chats.image(text_of(part, "image_url"))
    if name == "input_file":
        raise BadRequestError("file inputs are not currently supported")
    raise BadRequestError("invalid message format")


def tools(given: Sequence[Item]) -> list[Item]:
    """Functions, flat here and nested in a chat.  What the server itself would have to run is left out."""
    made = []
    for tool in given:
        if tool.get("type") == "function":
            made.append({"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}})
        elif tool.get("type") == "namespace" and isinstance(tool.get("tools"), list):
            made += tools([inner for inner in tool["tools"] if isinstance(inner, dict)])
    return made
