"""What an engine's refusal says, out of the JSON it says it in.  Ollama hands the JSON on inside a string."""

from __future__ import annotations

from typing import Any

import msgspec

from hyperllamad.core.errors import EngineRefusedError, HyperLlamaError
from hyperllamad.front import replies

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def text_of(found: HyperLlamaError) -> str:
    """The sentence for a client, without the JSON around an engine's own."""
    if not isinstance(found, EngineRefusedError):
        return replies.text_of(found)
    try:
        body = _decode(found.message)
    except (msgspec.DecodeError, UnicodeError):
        return replies.text_of(found)
    inner = body.get("error", body)
    words = inner.get("message") if isinstance(inner, dict) else inner
    return words if isinstance(words, str) and words else found.message
