"""What POST /v1/responses answers: the response object whole, or the events it grows by.  Pure but for ids and clock.

The order of events is OpenAI's.  An answer that is cut short is `incomplete` and one that fails ends in
`response.failed`; Ollama says `completed` to the first and nothing to the second.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from hyperllamad.front import gojson
from hyperllamad.front.answers import Gathered, Tokens
from hyperllamad.front.engine_wire import Chunk, parts
from hyperllamad.front.responses_requests import ResponsesRequest
from hyperllamad.front.tool_calls import Call, ToolCalls

Data = dict[str, Any]


class ResponsesReply:
    """See event_stream.Telling; there is always one answer."""

    def __init__(self, request: ResponsesRequest) -> None:
        self._request = request
        self._tail = secrets.token_hex(12)
        self._id = f"resp_{self._tail}"
        self._created = int(time.time())
        self._calls = ToolCalls()
        self._said: list[str] = []  # the text of the item being told
        self._output: list[Data] = []  # items that are finished
        self._open = ""  # the type of the item being told: "reasoning", "message", ""
        self._reason = ""
        self._count = 0
        self._delta = (b"", b"")  # what stands around the sequence number of a text delta

    # -- whole ---------------------------------------------------------------------------------------------------------

    def whole(self, gathered: Gathered, reason: str, tokens: Tokens) -> bytes:
        self._reason = reason
        if gathered.thinking:
            self._output.append(self._reasoning("".join(gathered.thinking)))
        calls = gathered.calls.take()
        if gathered.text or not calls:
            self._output.append(self._message("".join(gathered.text), self._status))
        self._output += [self._call(index, call) for index, call in enumerate(calls)]
        return gojson.encode(self._response(self._status, tokens)) + b"\n"

    @property
    def _status(self) -> str:
        return "incomplete" if self._reason == "length" else "completed"

    def _response(self, status: str, tokens: Tokens | None = None, error: str = "") -> Data:
        asked = self._request
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": asked.model,
            "previous_response_id": None,
            "instructions": asked.instructions or None,
            "output": self._output,
            "error": {"code": "server_error", "message": error} if error else None,
            "tools": asked.tools,
            "tool_choice": asked.tool_choice or "auto",
            "truncation": asked.truncation or "disabled",
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "text": {"format": asked.text.get("format") or {"type": "text"}},
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "top_logprobs": 0,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "reasoning": {"effort": None, "summary": None, **asked.reasoning} if asked.reasoning else None,
            "usage": _usage(tokens) if tokens is not None else None,
            "max_output_tokens": asked.max_output_tokens,
            "max_tool_calls": None,
            "store": False,
            "background": False,
            "service_tier": "default",
            "metadata": asked.metadata,
            "safety_identifier": None,
            "prompt_cache_key": None,
        }

    # -- items ---------------------------------------------------------------------------------------------------------

    def _reasoning(self, text: str) -> Data:
        summary = [{"type": "summary_text", "text": text}] if text else []
        return {
            "id": f"rs_{self._tail}_{len(self._output)}",
            "type": "reasoning",
            "summary": summary,
            "encrypted_content": text,
        }

    def _message(self, text: str, status: str) -> Data:
        content = [] if status == "in_progress" else [_part(text)]
        item = {"id": f"msg_{self._tail}_{len(self._output)}", "type": "message", "status": status, "role": "assistant"}
        return item | {"content": content}

    def _call(self, index: int, call: Call, *, begun: bool = False) -> Data:
        return {
            "id": f"fc_{self._tail}_{index}",
            "type": "function_call",
            "status": "in_progress" if begun else "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": "" if begun else call.arguments or "{}",
        }

    # -- events --------------------------------------------------------------------------------------------------------

    def begin(self) -> bytes:
        response = self._response("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def tokens(self, which: int, chunks: Sequence[Chunk]) -> bytes:  # noqa: ARG002  # there is one
        out: list[bytes] = []
        for chunk in chunks:
            if not chunk.choices:
                continue
            text, thinking, pieces = parts(chunk.choices[0])
            if thinking:
                out.append(self._thought(thinking))
            if text:
                out.append(self._text(text))
            if pieces:
                self._calls.add(pieces)
        return b"".join(out)

    def _event(self, name: str, **data: Any) -> bytes:
        made = gojson.encode({"type": name, "sequence_number": self._count, **data})
        self._count += 1
        return b"event: %s\ndata: %s\n\n" % (name.encode(), made)

    def _thought(self, text: str) -> bytes:
        out = b""
        if self._open != "reasoning":
            out = self._close()
            self._open = "reasoning"
            out += self._event("response.output_item.added", output_index=len(self._output), item=self._reasoning(""))
        self._said.append(text)
        where = {
            "item_id": f"rs_{self._tail}_{len(self._output)}",
            "output_index": len(self._output),
            "summary_index": 0,
        }
        return out + self._event("response.reasoning_summary_text.delta", **where, delta=text)

    def _text(self, text: str) -> bytes:
        """The hot path: constant pieces around the number and the text."""
        out = b"" if self._open == "message" else self._begin_message()
        self._said.append(text)
        before, after = self._delta
        number = b"%d" % self._count
        self._count += 1
        return out + before + number + after + gojson.string(text) + b',"logprobs":[]}\n\n'

    @property
    def _told_text(self) -> bool:
        return self._open == "message" or any(item["type"] == "message" for item in self._output)

    def _begin_message(self) -> bytes:
        out = self._close()
        self._open = "message"
        item = self._message("", "in_progress")
        out += self._event("response.output_item.added", output_index=len(self._output), item=item)
        name = "response.output_text.delta"
        where = gojson.encode(self._where())
        before = f'event: {name}\ndata: {{"type":"{name}","sequence_number":'.encode()
        self._delta = (before, b"," + where[1:-1] + b',"delta":')
        return out + self._event("response.content_part.added", **self._where(), part=_part(""))

    def _where(self) -> Data:
        return {
            "item_id": f"msg_{self._tail}_{len(self._output)}",
            "output_index": len(self._output),
            "content_index": 0,
        }

    def _close(self) -> bytes:
        """End the item that is open, if any."""
        text = "".join(self._said)
        self._said.clear()
        if self._open == "reasoning":
            where = {
                "item_id": f"rs_{self._tail}_{len(self._output)}",
                "output_index": len(self._output),
                "summary_index": 0,
            }
            out = self._event("response.reasoning_summary_text.done", **where, text=text)
            item = self._reasoning(text)
        elif self._open == "message":
            out = self._event("response.output_text.done", **self._where(), text=text, logprobs=[])
            out += self._event("response.content_part.done", **self._where(), part=_part(text))
            item = self._message(text, self._status)
        else:
            return b""
        out += self._event("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        self._open = ""
        return out

    def finish(self, which: int, reason: str) -> bytes:  # noqa: ARG002  # there is one
        self._reason = reason
        calls = self._calls.take()
        out: list[bytes] = []
        if not (self._told_text or calls):
            out.append(self._begin_message())
        out.append(self._close())
        for index, call in enumerate(calls):
            item, at = self._call(index, call), len(self._output)
            where = {"item_id": item["id"], "output_index": at}
            out += [
                self._event("response.output_item.added", output_index=at, item=self._call(index, call, begun=True)),
                self._event("response.function_call_arguments.delta", **where, delta=item["arguments"]),
                self._event("response.function_call_arguments.done", **where, arguments=item["arguments"]),
                self._event("response.output_item.done", output_index=at, item=item),
            ]
            self._output.append(item)
        return b"".join(out)

    def end(self, tokens: Tokens) -> bytes:
        return self._event(f"response.{self._status}", response=self._response(self._status, tokens))

    def failure(self, text: str, status: int) -> bytes:  # noqa: ARG002  # it has been sent already
        return self._event("response.failed", response=self._response("failed", error=text))


def _part(text: str) -> Data:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(tokens: Tokens) -> Data:
    return {
        "input_tokens": tokens.prompt,
        "output_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
