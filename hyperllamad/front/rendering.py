"""What a prompt looks like to the model: the chat template applied, text as token ids.  Asked of the engine.

An engine says in its probe's `extra` which of it can: "apply_template" (messages -> text, llama.cpp's route) and
"tokenize" (text or messages -> ids, llama.cpp's and vLLM's).  The body names the text both ways, because each of the
two ignores the other's name.
"""

from __future__ import annotations

import contextlib
from typing import Any

import aiohttp
import anyio
import msgspec

from hyperllamad.core.models import Kind
from hyperllamad.front.ports import Upstream

PATIENCE = 2.0  # seconds; these are conveniences, and an answer must not wait for one that hangs
NEEDED = 15.0  # for what an answer cannot go on without


class _Reply(msgspec.Struct):
    prompt: str = ""
    tokens: list[int] = []


_decode = msgspec.json.Decoder(_Reply).decode


async def template(upstream: Upstream, body: dict[str, Any]) -> str | None:
    """The text a chat body becomes; None when the engine cannot say."""
    path = upstream.engine.probe.extra.get("apply_template")
    reply = await _ask(upstream, path, _of(upstream, body))
    return None if reply is None else reply.prompt


async def prompt_ids(upstream: Upstream, body: dict[str, Any]) -> list[int] | None:
    """The token ids a chat body becomes; None when the engine cannot say."""
    if (text := await template(upstream, body)) is not None:
        return await text_ids(upstream, text)
    reply = await _ask(upstream, upstream.engine.probe.extra.get("tokenize"), _of(upstream, body))
    return reply.tokens if reply and reply.tokens else None


async def text_ids(upstream: Upstream, text: str) -> list[int] | None:
    """The token ids of a text, special tokens read as such and none added; None when the engine cannot say."""
    named = {"content": text, "prompt": text}
    how = {"add_special": False, "parse_special": True, "add_special_tokens": False, "model": upstream.name}
    reply = await _ask(upstream, upstream.engine.probe.extra.get("tokenize"), named | how)
    return None if reply is None else reply.tokens


async def asked_ids(upstream: Upstream, kind: Kind, body: dict[str, Any]) -> list[int] | None:
    """The token ids an engine makes of a body on its own, the mark of the beginning included."""
    if kind is Kind.CHAT:
        text = await template(upstream, body)
    elif isinstance(prompt := body["prompt"], str):
        text = prompt
    else:
        return list(prompt)
    return None if text is None else await _tokens(upstream, text, add_special=True)


async def said_ids(upstream: Upstream, texts: list[str]) -> list[int] | None:
    """The token ids of an answer that came in these pieces; None when the engine cannot say.

    Each piece is one token, and read alone becomes that token again.  Not so with a vocabulary of SentencePiece, where
    a blank is thought in front of every text: there the whole is read at once.
    """
    alone = upstream.model.info.get("tokenizer.ggml.model") == "gpt2"
    return await _tokens(upstream, texts if alone else "".join(texts), add_special=False)


async def _tokens(upstream: Upstream, content: str | list[str], *, add_special: bool) -> list[int] | None:
    path = upstream.engine.probe.extra.get("tokenize")
    body = {"content": content, "add_special": add_special, "parse_special": True}
    named = {"prompt": content, "add_special_tokens": add_special, "model": upstream.name}
    reply = await _ask(upstream, path, body | named, NEEDED)
    return reply.tokens if reply and reply.tokens else None


def _of(upstream: Upstream, body: dict[str, Any]) -> dict[str, Any]:
    """The part of a chat body that the template sees."""
    seen = {key: body[key] for key in ("messages", "tools", "chat_template_kwargs") if key in body}
    return seen | {"model": upstream.name}


async def _ask(upstream: Upstream, path: str | None, body: dict[str, Any], patience: float = PATIENCE) -> _Reply | None:
    if path is None:
        return None
    with anyio.move_on_after(patience), contextlib.suppress(aiohttp.ClientError, OSError, msgspec.DecodeError):
        reply = await upstream.post(path, msgspec.json.encode(body))
        with contextlib.closing(reply):
            return _decode(await reply.read()) if reply.status == 200 else None
    return None
