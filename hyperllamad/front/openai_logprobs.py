"""An engine's logprobs in OpenAI's two forms.  Pure.

Engines answer in either form themselves (MAX's completion route leaves the tokens out: there the chunk's text is the
token), so both are brought to one first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hyperllamad.front import gojson
from hyperllamad.front.engine_wire import Logprobs, TokenAlternative, TokenLogprob

Item = dict[str, Any]


def chat(found: Logprobs, text: str) -> list[Item]:
    """The `content` list of a chat: one item a token."""
    return [
        _item(token) | {"top_logprobs": [_item(top) for top in token.top_logprobs or ()]} for token in _all(found, text)
    ]


def completion(found: Iterable[tuple[str, Logprobs]], offset: int = 0) -> Item:
    """The older form, four lists; `found` are texts and their logprobs, `offset` where the first text begins."""
    tokens: list[str] = []
    values, tops, offsets = [], [], []
    for text, logprobs in found:
        for token in _all(logprobs, text):
            tokens.append(token.token)
            values.append(gojson.number(token.logprob))
            tops.append({top.token: gojson.number(top.logprob) for top in token.top_logprobs or ()})
            offsets.append(offset)
            offset += len(token.token)
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}


def _item(token: TokenAlternative) -> Item:
    raw = list(token.token.encode()) if token.bytes is None else token.bytes
    return {"token": token.token, "logprob": gojson.number(token.logprob), "bytes": raw}


def _all(found: Logprobs, text: str) -> list[TokenLogprob]:
    if found.content is not None:
        return found.content
    tops = found.top_logprobs or []
    return [
        TokenLogprob(token, value or 0.0, None, [TokenAlternative(*pair) for pair in _top(tops, i).items()])
        for i, (token, value) in enumerate(zip(found.tokens or (text,), found.token_logprobs or (), strict=False))
    ]


def _top(tops: list[dict[str, float] | None], which: int) -> dict[str, float]:
    return (tops[which] if which < len(tops) else None) or {}
