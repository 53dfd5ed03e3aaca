"""Which answers can be continued on another engine, and the request that continues one.  Pure.

A continued answer must be one that the first engine could have given.  For greedy answers that is the very same text;
for answers drawn at random without a seed any draw from here on is as good as another.  Where something of the
answer's making is lost with the engine, nothing is continued, and the client is told why.
"""

from __future__ import annotations

from typing import Any

from hyperllamad.core.models import Kind
from hyperllamad.front.engine_wire import Chunk

# What says how the rest is to be written.  Everything else of a body says what it is an answer to.
_KEPT = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "repeat_last_n", "seed"),
    *("stop", "stop_token_ids", "ignore_eos", "logit_bias", "stream", "stream_options"),
)


def refusal(kind: Kind, body: dict[str, Any]) -> str:
    """Why an answer to this could not be continued, as a clause; "" when it could."""
    greedy = body.get("temperature", 1.0) == 0 or body.get("top_k") == 1 or body.get("top_p", 1.0) == 0
    lost = {
        "it may call tools": bool(body.get("tools")),
        "its form is checked from its beginning on": bool(body.get("response_format")),
        "it tells probabilities": body.get("logprobs") is not None and body["logprobs"] is not False,
        "it is drawn at random from a seed": "seed" in body and not greedy,
        "it is penalised for what it has said": bool(body.get("presence_penalty") or body.get("frequency_penalty")),
        "it fills a gap": bool(body.get("suffix")),
        "it repeats its prompt": bool(body.get("echo")),
        "it is about images": kind is Kind.CHAT and any(_has_parts(message) for message in body["messages"]),
    }
    return next((why for why, so in lost.items() if so), "")


def _has_parts(message: dict[str, Any]) -> bool:
    return isinstance(message.get("content"), list)


class Seen:
    """What an engine has said of one answer, kept small: texts, and token ids where it tells them."""

    __slots__ = ("_pending", "ids", "more", "prompt", "texts")

    def __init__(self) -> None:
        self.prompt: list[int] | None = None  # ids of the prompt, template and all
        self.ids: list[int] = []  # of the answer, up to where its text was last complete
        self.texts: list[str] = []  # in the pieces in which it came: of llama.cpp each is one token
        self.more = ""  # what else came, with which it cannot be continued
        self._pending: list[int] = []

    def note(self, chunk: Chunk) -> None:
        """One chunk, as the engine sent it."""
        if chunk.prompt_token_ids:
            self.prompt = chunk.prompt_token_ids
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        if choice.prompt_token_ids:
            self.prompt = choice.prompt_token_ids
        if choice.token_ids:
            self._pending += choice.token_ids
        delta = choice.delta
        text = choice.text if delta is None else delta.content
        if text:
            self.texts.append(text)
            # Ids without a text are half a character, or held back because a stop string may begin there: those are
            # written again.
            self.ids += self._pending
            self._pending.clear()
        if delta is not None:
            if delta.tool_calls:
                self.more = "half a tool call was sent"
            elif delta.reasoning or delta.reasoning_content:
                self.more = "it had thoughts before"


def continued(body: dict[str, Any], prompt: list[int], said: list[int], context: int) -> dict[str, Any] | None:
    """The body for the completion route that goes on behind `said`; None when no token may follow."""
    left = min(body.get("max_tokens") or context, context) - len(said)
    if left <= 0:
        return None
    kept = {name: body[name] for name in _KEPT if name in body}
    if least := body.get("min_tokens"):
        kept["min_tokens"] = max(0, least - len(said))
    return kept | {"prompt": [*prompt, *said], "max_tokens": left}
