"""OpenAI chunks turned into Ollama's replies: a line per token event, the last line, or the whole at once.  Pure but
for the clock that `created_at` shows.

A token's line is put together from constant pieces (this is the hot path: see docs/performance.md); every other reply
is a Struct of `ollama_wire`.  tests/front/test_lines.py holds the two against each other, byte by byte.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypedDict

from hyperllamad.front import engine_wire, gojson, gotime
from hyperllamad.front import ollama_wire as wire
from hyperllamad.front.engine_wire import Chunk
from hyperllamad.front.tool_calls import Call, ToolCalls, read


class Counters(TypedDict, total=False):
    """The figures of a last line, as the replies call them; durations in nanoseconds."""

    total_duration: int
    load_duration: int
    prompt_eval_count: int
    prompt_eval_duration: int
    eval_count: int
    eval_duration: int


@dataclass(frozen=True, slots=True)
class End:
    """What is known when an answer is finished."""

    done_reason: str  # "stop", "length", "load" or "unload"
    context: list[int] = field(default_factory=list)  # token ids of prompt and answer
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, slots=True)
class Said:
    """What one reply carries."""

    text: str = ""
    thinking: str = ""
    calls: Sequence[wire.ToolCall] = ()
    logprobs: Sequence[wire.Logprob] = ()


@dataclass(slots=True)
class Collected:
    """An answer so far, for a client that wants it whole; `alternatives`: how many of them to tell for a token."""

    alternatives: int = 0
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    logprobs: list[wire.Logprob] = field(default_factory=list)
    calls: ToolCalls = field(default_factory=ToolCalls)

    def add(self, chunks: Iterable[Chunk]) -> bool:
        """Whether there was anything to show in them."""
        found = False
        for chunk in chunks:
            if not chunk.choices:
                continue
            choice = chunk.choices[0]
            text, thinking, pieces = engine_wire.parts(choice)
            found = found or bool(text or thinking or pieces)
            if text:
                self.text.append(text)
            if thinking:
                self.thinking.append(thinking)
            if pieces:
                self.calls.add(pieces)
            if choice.logprobs is not None:
                self.logprobs += logprobs(choice.logprobs, text or "", self.alternatives)
        return found


class Lines(ABC):
    """One answer in one of the two native forms; `model` is echoed as the client wrote it.

    `alternatives`: how many other tokens are told for each; engines give one even when none was asked for.
    """

    _text_key: ClassVar[bytes]  # from behind created_at to the text
    _text_end: ClassVar[bytes]  # closes what _text_key opened

    def __init__(self, model: str, alternatives: int = 0) -> None:
        self.model = model
        self.alternatives = alternatives
        self.said: list[str] = []  # the text so far; only kept when `keep_text` is set
        self.keep_text = False
        self._before = b'{"model":' + gojson.string(model) + b',"created_at":"'
        self._calls = ToolCalls()

    def tokens(self, chunks: Iterable[Chunk]) -> bytes:
        """A line for each chunk that carries something to show, b"" when none does."""
        head = self._before + gotime.utc(time.time_ns()) + self._text_key
        end = self._text_end + b',"done":false}\n'
        out: list[bytes] = []
        for chunk in chunks:
            if not chunk.choices:
                continue
            choice = chunk.choices[0]
            text, thinking, pieces = engine_wire.parts(choice)
            if pieces:
                self._calls.add(pieces)
            if choice.logprobs is not None:
                out.append(self._line_with_logprobs(head, text or "", thinking, choice.logprobs))
            elif thinking:
                out.append(head + gojson.string(text or "") + b',"thinking":' + gojson.string(thinking) + end)
            elif text:
                out.append(head + gojson.string(text) + end)
            if text and self.keep_text:
                self.said.append(text)
        return b"".join(out)

    def _line_with_logprobs(self, head: bytes, text: str, thinking: str | None, found: engine_wire.Logprobs) -> bytes:
        thought = b',"thinking":' + gojson.string(thinking) if thinking else b""
        items = logprobs(found, text, self.alternatives)
        listed = b',"logprobs":' + gojson.encode(items) if items else b""
        return head + gojson.string(text) + thought + self._text_end + b',"done":false' + listed + b"}\n"

    def last(self, end: End) -> bytes:
        """The lines that end a stream: a line for each tool call, then the one that says `done`."""
        calls, spoken = tool_calls(self._calls.take())
        said = [Said(text=spoken)] if spoken else []
        said += [Said(calls=[call]) for call in calls]
        lines = [*(self._reply(item, None) for item in said), self._reply(Said(), end)]
        return b"".join(line + b"\n" for line in lines)

    def whole(self, collected: Collected, end: End) -> bytes:
        """The reply for a client that does not stream; no newline at the end."""
        calls, spoken = tool_calls(collected.calls.take())
        text, thinking = "".join(collected.text) + spoken, "".join(collected.thinking)
        return self._reply(Said(text, thinking, calls, collected.logprobs), end)

    def bare(self, done_reason: str) -> bytes:
        """The reply to a request that only loads or unloads."""
        return self._reply(Said(), End(done_reason))

    @abstractmethod
    def _reply(self, said: Said, end: End | None) -> bytes:
        """Anything but a plain token: `end` makes it the last line."""

    @abstractmethod
    def rendered(self, template: str, images: int) -> bytes:
        """The reply that shows the rendered prompt instead of running it."""


class ChatLines(Lines):
    """/api/chat."""

    _text_key = b'","message":{"role":"assistant","content":'
    _text_end = b"}"

    def _reply(self, said: Said, end: End | None) -> bytes:
        message = wire.Message(role="assistant", content=said.text, thinking=said.thinking, tool_calls=list(said.calls))
        return wire.ChatReply(
            model=self.model,
            created_at=_now(),
            message=message,
            done=end is not None,
            done_reason=end.done_reason if end else "",
            logprobs=list(said.logprobs),
            **(end.counters if end else Counters()),
        ).encode()

    def rendered(self, template: str, images: int) -> bytes:
        return wire.ChatReply(
            model=self.model,
            created_at=_now(),
            message=wire.Message(role="", content=""),
            done=False,
            debug_info=wire.DebugInfo(rendered_template=template, image_count=images),
        ).encode()


class GenerateLines(Lines):
    """/api/generate."""

    _text_key = b'","response":'
    _text_end = b""

    def _reply(self, said: Said, end: End | None) -> bytes:
        return wire.GenerateReply(
            model=self.model,
            created_at=_now(),
            response=said.text,
            thinking=said.thinking,
            done=end is not None,
            done_reason=end.done_reason if end else "",
            context=end.context if end else [],
            tool_calls=list(said.calls),
            logprobs=list(said.logprobs),
            **(end.counters if end else Counters()),
        ).encode()

    def rendered(self, template: str, images: int) -> bytes:
        return wire.GenerateReply(
            model=self.model,
            created_at=_now(),
            response="",
            done=False,
            debug_info=wire.DebugInfo(rendered_template=template, image_count=images),
        ).encode()


def _now() -> str:
    return gotime.utc(time.time_ns()).decode()


def error_line(text: str) -> bytes:
    """How a stream ends that cannot go on: nothing else is on this line and nothing follows it."""
    return b'{"error":' + gojson.string(text) + b"}\n"


# -- parts of replies --------------------------------------------------------------------------------------------------


def tool_calls(calls: Iterable[Call]) -> tuple[list[wire.ToolCall], str]:
    """The calls in Ollama's form, and what is said instead of those that are none."""
    good, spoken = read(calls)
    made = [
        wire.ToolCall(id=call.id, function=wire.ToolFunction(index=index, name=call.name, arguments=arguments))
        for index, (call, arguments) in enumerate(good)
    ]
    return made, spoken


def logprobs(found: engine_wire.Logprobs, text: str, most: int) -> list[wire.Logprob]:
    """An engine's logprobs, in either of OpenAI's forms, in Ollama's, with up to `most` alternatives to each.

    MAX names no tokens on the completion route: there the chunk's `text` is the token.
    """
    if found.content is not None:
        return [_logprob(item, most) for item in found.content]
    listed = zip(found.tokens or (text,), found.token_logprobs or (), strict=False)
    tops = found.top_logprobs or []
    return [
        wire.Logprob(
            token=token,
            logprob=gojson.number(value or 0.0),
            bytes=list(token.encode()),
            top_logprobs=[_alternative(*pair) for pair in _first(tops, i, most)],
        )
        for i, (token, value) in enumerate(listed)
    ]


def _first(tops: Sequence[Mapping[str, float] | None], i: int, most: int) -> list[tuple[str, float]]:
    """The likeliest alternatives at one place; a token the model took may be listed behind them."""
    here = (tops[i] if i < len(tops) else None) or {}
    return sorted(here.items(), key=lambda pair: -pair[1])[:most]


def _logprob(item: engine_wire.TokenLogprob, most: int) -> wire.Logprob:
    return wire.Logprob(
        token=item.token,
        logprob=gojson.number(item.logprob),
        bytes=_bytes(item),
        top_logprobs=[
            wire.Alternative(token=top.token, logprob=gojson.number(top.logprob), bytes=_bytes(top))
            for top in (item.top_logprobs or ())[:most]
        ],
    )


def _alternative(token: str, value: float) -> wire.Alternative:
    return wire.Alternative(token=token, logprob=gojson.number(value), bytes=list(token.encode()))


def _bytes(item: engine_wire.TokenAlternative) -> list[int]:
    return list(item.token.encode()) if item.bytes is None else item.bytes
