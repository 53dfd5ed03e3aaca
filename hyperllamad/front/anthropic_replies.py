"""What /v1/messages answers: a message whole, or the events it grows by.  Pure but for ids."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from hyperllamad.front import anthropic_errors, gojson
from hyperllamad.front.answers import Gathered, Tokens
from hyperllamad.front.engine_wire import Chunk, parts
from hyperllamad.front.tool_calls import Call, ToolCalls, read

Data = dict[str, Any]


class MessageReply:
    """See event_stream.Telling; there is always one answer.  `estimate`: tokens of the prompt, roughly."""

    def __init__(self, model: str, estimate: int = 0) -> None:
        self._head: Data = {
            "id": "msg_" + secrets.token_hex(12),
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        self._request = anthropic_errors.request_id()
        self._estimate = estimate
        self._calls = ToolCalls()
        self._index = -1  # of the block that was begun last
        self._open = ""  # its type, "" when it has ended
        self._before = b""  # of a delta of that block, up to its text
        self._stop = ""

    def whole(self, gathered: Gathered, reason: str, tokens: Tokens) -> bytes:
        calls, spoken = _used(gathered.calls.take())
        content: list[Data] = []
        if gathered.thinking:
            content.append({"type": "thinking", "thinking": "".join(gathered.thinking)})
        if text := "".join(gathered.text) + spoken:
            content.append({"type": "text", "text": text})
        content += calls
        stop = _stop_reason(reason, called=bool(calls))
        return gojson.encode(self._head | {"content": content, "stop_reason": stop, "usage": _usage(tokens)}) + b"\n"

    def begin(self) -> bytes:
        usage = {"input_tokens": self._estimate, "output_tokens": 0}
        return _event("message_start", message=self._head | {"content": [], "usage": usage})

    def tokens(self, which: int, chunks: Sequence[Chunk]) -> bytes:  # noqa: ARG002  # there is one
        out: list[bytes] = []
        for chunk in chunks:
            if not chunk.choices:
                continue
            text, thinking, pieces = parts(chunk.choices[0])
            if thinking:
                out.append(self._delta("thinking", thinking))
            if text:
                out.append(self._delta("text", text))
            if pieces:
                self._calls.add(pieces)
        return b"".join(out)

    def _delta(self, kind: str, text: str) -> bytes:
        """The hot path: constant pieces around the text."""
        start = b"" if self._open == kind else self._close() + self._begin_block({"type": kind, kind: ""})
        return start + self._before + gojson.string(text) + b"}}\n\n"

    def _begin_block(self, block: Data) -> bytes:
        self._index += 1
        self._open = kind = block["type"]
        delta = f'{{"type":"content_block_delta","index":{self._index},"delta":{{"type":"{kind}_delta","{kind}":'
        self._before = b"event: content_block_delta\ndata: " + delta.encode()
        return _event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> bytes:
        """End the block that is open, if any."""
        if not self._open:
            return b""
        self._open = ""
        return _event("content_block_stop", index=self._index)

    def finish(self, which: int, reason: str) -> bytes:  # noqa: ARG002  # there is one
        calls, spoken = _used(self._calls.take())
        out = [self._delta("text", spoken)] if spoken else []
        out.append(self._close())
        for call in calls:
            out.append(self._begin_block(call | {"input": {}}))
            text = gojson.encode(call["input"]).decode()
            delta = {"type": "input_json_delta", "partial_json": text}
            out += [_event("content_block_delta", index=self._index, delta=delta), self._close()]
        self._stop = _stop_reason(reason, called=bool(calls))
        return b"".join(out)

    def end(self, tokens: Tokens) -> bytes:
        delta = {"stop_reason": self._stop}
        return _event("message_delta", delta=delta, usage=_usage(tokens)) + _event("message_stop")

    def failure(self, text: str, status: int) -> bytes:
        return b"event: error\ndata: " + anthropic_errors.document(text, status, self._request) + b"\n\n"


def _event(name: str, **data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), gojson.encode({"type": name, **data}))


def _usage(tokens: Tokens) -> Data:
    return {"input_tokens": tokens.prompt, "output_tokens": tokens.completion}


def _stop_reason(reason: str, *, called: bool) -> str:
    if called:
        return "tool_use"
    return "max_tokens" if reason == "length" else "end_turn"


def _used(calls: Iterable[Call]) -> tuple[list[Data], str]:
    """The calls as blocks, and what is said instead of those that are none."""
    good, spoken = read(calls)
    return [{"type": "tool_use", "id": call.id, "name": call.name, "input": given} for call, given in good], spoken
