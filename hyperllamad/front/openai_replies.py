"""What the OpenAI routes answer: chunks of a stream, or the whole.  Pure but for ids and the clock.

A token's chunk is put together from constant pieces (the hot path, as in ollama_lines); all others are plain data.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from hyperllamad.front import gojson, openai_errors, openai_logprobs
from hyperllamad.front.answers import Gathered, Tokens
from hyperllamad.front.engine_wire import Choice, Chunk, ToolCallDelta, parts

FINGERPRINT = "fp_ollama"
DONE = b"data: [DONE]\n\n"
_NOTHING_USED = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

Data = dict[str, Any]


def event(data: Data) -> bytes:
    return b"data: " + gojson.encode(data) + b"\n\n"


def used(tokens: Tokens) -> Data:
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
    }


def finish_reason(reason: str, *, called: bool) -> str:
    """An engine's reason in OpenAI's words."""
    if reason == "length":
        return "length"
    return "tool_calls" if called else "stop"


class Reply(ABC):
    """One response of a generating route, streamed (see event_stream.Telling) or whole."""

    _id: ClassVar[str]
    _object: ClassVar[str]
    _chunk_object: ClassVar[str]

    def __init__(self, model: str, *, answers: int = 1, usage: bool = False) -> None:
        self._usage = usage  # the client wants it in the stream
        self._head: Data = {
            "id": self._id + secrets.token_hex(12),
            "object": self._object,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._begun = [False] * answers

    def begin(self) -> bytes:
        return b""

    @abstractmethod
    def tokens(self, which: int, chunks: Sequence[Chunk]) -> bytes:
        """A chunk for each piece of text, thought or call."""

    @abstractmethod
    def finish(self, which: int, reason: str) -> bytes: ...

    @abstractmethod
    def _choice(self, which: int, gathered: Gathered, reason: str) -> Data:
        """One answer whole."""

    @abstractmethod
    def _chunk(self, choices: Sequence[Data], usage: Data | None = None) -> bytes: ...

    def end(self, tokens: Tokens) -> bytes:
        return (self._chunk([], used(tokens)) if self._usage else b"") + DONE

    def failure(self, text: str, status: int) -> bytes:
        """The error and the end: a client that waits for either gets it."""
        return b"data: " + openai_errors.document(text, status) + b"\n\n" + DONE

    def whole(self, gathered: Sequence[Gathered], reasons: Sequence[str], tokens: Tokens) -> bytes:
        choices = [self._choice(which, *pair) for which, pair in enumerate(zip(gathered, reasons, strict=True))]
        return gojson.encode(self._head | {"choices": choices, "usage": used(tokens)}) + b"\n"


class ChatReply(Reply):
    """/v1/chat/completions."""

    _id, _object, _chunk_object = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def __init__(self, model: str, *, answers: int = 1, usage: bool = False) -> None:
        super().__init__(model, answers=answers, usage=usage)
        head = gojson.encode(self._head | {"object": self._chunk_object})
        self._before = [b'data: %s,"choices":[{"index":%d,"delta":{' % (head[:-1], which) for which in range(answers)]
        self._calls: list[set[int]] = [set() for _ in range(answers)]

    def tokens(self, which: int, chunks: Sequence[Chunk]) -> bytes:
        out: list[bytes] = []
        before = self._before[which]
        for chunk in chunks:
            if not chunk.choices:
                continue
            choice = chunk.choices[0]
            text, thinking, pieces = parts(choice)
            if not self._begun[which]:
                if not (text or thinking or pieces or choice.logprobs):
                    continue
                self._begun[which] = True
                before += b'"role":"assistant",'
            if text and not thinking and not pieces and choice.logprobs is None:
                out.append(before + b'"content":' + gojson.string(text) + b'},"finish_reason":null}]}\n\n')
            else:
                out.append(self._rich(which, before, choice))
            before = self._before[which]
        return b"".join(out)

    def _rich(self, which: int, before: bytes, choice: Choice) -> bytes:
        """Whatever is not just text.  Thought, text and calls get a chunk each."""
        text, thinking, pieces = parts(choice)
        deltas: list[bytes] = []
        if thinking:
            deltas.append(b'"content":"","reasoning":' + gojson.string(thinking))
        if text or choice.logprobs is not None:
            deltas.append(b'"content":' + gojson.string(text or ""))
        if pieces:
            calls = [_piece(piece, self._calls[which]) for piece in pieces]
            deltas.append(b'"content":"","tool_calls":' + gojson.encode(calls))
        listed = b""
        if choice.logprobs is not None:
            items = openai_logprobs.chat(choice.logprobs, text or "")
            listed = b',"logprobs":' + gojson.encode({"content": items})
        starts = [before, *[self._before[which]] * len(deltas)]
        return b"".join(
            start + delta + b'},"finish_reason":null' + listed + b"}]}\n\n"
            for start, delta in zip(starts, deltas, strict=False)
        )

    def finish(self, which: int, reason: str) -> bytes:
        reason = finish_reason(reason, called=bool(self._calls[which]))
        last = self._chunk([{"index": which, "delta": {}, "finish_reason": reason}])
        if self._begun[which]:
            return last
        opening = {"role": "assistant", "content": ""}
        return self._chunk([{"index": which, "delta": opening, "finish_reason": None}]) + last

    def _chunk(self, choices: Sequence[Data], usage: Data | None = None) -> bytes:
        data = self._head | {"object": self._chunk_object, "choices": choices}
        return event(data if usage is None else data | {"usage": usage})

    def _choice(self, which: int, gathered: Gathered, reason: str) -> Data:
        message: Data = {"role": "assistant", "content": "".join(gathered.text)}
        if gathered.thinking:
            message["reasoning"] = "".join(gathered.thinking)
        calls = gathered.calls.take()
        if calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "index": index,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments or "{}"},
                }
                for index, call in enumerate(calls)
            ]
        choice = {"index": which, "message": message, "finish_reason": finish_reason(reason, called=bool(calls))}
        if gathered.logprobs:
            items = [item for text, found in gathered.logprobs for item in openai_logprobs.chat(found, text)]
            choice["logprobs"] = {"content": items}
        return choice

    def rendered(self, template: str) -> bytes:
        """The reply that shows the rendered prompt instead of running it."""
        choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": None}
        info = {"rendered_template": template}
        data = {"choices": [choice], "usage": _NOTHING_USED, "_debug_info": info}
        return gojson.encode(self._head | data) + b"\n"


def _piece(piece: ToolCallDelta, begun: set[int]) -> Data:
    """A piece of a call as it came; the first one always names the call."""
    function: Data = {"arguments": (piece.function.arguments if piece.function else "") or ""}
    if piece.function and piece.function.name:
        function = {"name": piece.function.name} | function
    if piece.index in begun:
        return {"index": piece.index, "function": function}
    begun.add(piece.index)
    return {
        "index": piece.index,
        "id": piece.id or "call_" + secrets.token_hex(4),
        "type": "function",
        "function": function,
    }


class CompletionReply(Reply):
    """/v1/completions.  Thoughts are left out: the route has no place for them."""

    _id, _object, _chunk_object = "cmpl-", "text_completion", "text_completion"

    def __init__(self, model: str, *, answers: int = 1, usage: bool = False) -> None:
        super().__init__(model, answers=answers, usage=usage)
        self._at = [0] * answers  # characters written so far, for the offsets of logprobs
        head = self._head
        self._before = b"data: " + gojson.encode({key: head[key] for key in ("id", "object", "created")})[:-1]
        self._before += b',"choices":[{"text":'
        named = {key: head[key] for key in ("model", "system_fingerprint")}
        if usage:
            named["usage"] = _NOTHING_USED
        after = b"," + gojson.encode(named)[1:] + b"\n\n"
        self._after = [b',"index":%d,"finish_reason":null}]%s' % (which, after) for which in range(answers)]

    def tokens(self, which: int, chunks: Sequence[Chunk]) -> bytes:
        out: list[bytes] = []
        for chunk in chunks:
            if not chunk.choices:
                continue
            choice = chunk.choices[0]
            text, _, _ = parts(choice)
            if choice.logprobs is not None:
                listed = openai_logprobs.completion([(text or "", choice.logprobs)], self._at[which])
                plain = {"text": text or "", "index": which, "finish_reason": None}
                out.append(self._chunk([plain | {"logprobs": listed}], _NOTHING_USED if self._usage else None))
            elif text:
                out.append(self._before + gojson.string(text) + self._after[which])
            self._at[which] += len(text or "")
        return b"".join(out)

    def finish(self, which: int, reason: str) -> bytes:
        choice = {"text": "", "index": which, "finish_reason": finish_reason(reason, called=False)}
        return self._chunk([choice], _NOTHING_USED if self._usage else None)

    def _chunk(self, choices: Sequence[Data], usage: Data | None = None) -> bytes:
        head = self._head
        data: Data = {key: head[key] for key in ("id", "object", "created")} | {"choices": choices}
        data |= {key: head[key] for key in ("model", "system_fingerprint")}
        return event(data if usage is None else data | {"usage": usage})

    def _choice(self, which: int, gathered: Gathered, reason: str) -> Data:
        choice: Data = {"text": "".join(gathered.text), "index": which}
        choice["finish_reason"] = finish_reason(reason, called=False)
        if gathered.logprobs:
            choice["logprobs"] = openai_logprobs.completion(gathered.logprobs)
        return choice

    def loaded(self) -> bytes:
        """The reply to an empty prompt, which only loads the model."""
        choice = {"text": "", "index": 0, "finish_reason": "load"}
        return gojson.encode(self._head | {"choices": [choice], "usage": _NOTHING_USED}) + b"\n"

    def loaded_stream(self) -> bytes:
        return self._chunk([{"text": "", "index": 0, "finish_reason": "load"}]) + self.end(Tokens())
